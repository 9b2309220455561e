"""Which examples a step trains on: a pure function of seed, prompt index and step, resumable anywhere.

An epoch is one order of all examples. Steps take the next `batch_size` examples from the epochs laid end to
end, so that none is left out when the batch size does not divide their number.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from chorus_server.tuning.raw_bits import shuffled


def batch_indices(seed: int, index: int, step: int, batch_size: int, examples: int) -> list[int]:
    """Indices of the examples that a step (0, 1, ...) of the prompt with this `index` trains on.

    Args:
        seed: the job's.
        examples: size of the train split, at least 1.
    """
    first = step * batch_size
    return [_at(seed, index, position, examples) for position in range(first, first + batch_size)]


def epoch_of(step: int, batch_size: int, examples: int) -> float:
    """How many times the examples have been seen after `step` steps."""
    return step * batch_size / examples


def forget_orders() -> None:
    """Drop the cached orders: with millions of examples each takes megabytes, and no other job uses them."""
    _epoch.cache_clear()


def _at(seed: int, index: int, position: int, examples: int) -> int:
    epoch, place = divmod(position, examples)
    return int(_epoch(seed, index, epoch, examples)[place])


@lru_cache(maxsize=64)
def _epoch(seed: int, index: int, epoch: int, examples: int) -> NDArray[np.int64]:
    return shuffled(examples, "epoch", seed, index, epoch)
