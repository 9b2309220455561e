"""A flat file of ids as an endless sequence of chunks, shuffled again each epoch. Any position can be read at
once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from chorus_server.errors import InvalidInputError
from chorus_server.pretraining.data.randomness import below, permutation
from chorus_server.pretraining.data.tokens import Ids


@dataclass(frozen=True, eq=False)
class Chunks:
    """Chunks of one length.

    Each epoch cuts the file at another offset and takes the pieces in another order, so that a text is not
    always cut at the same place. Text at either end of an epoch that is shorter than a chunk is left out.

    Attributes:
        ids: flat.
        length: N, ids in a chunk.
        seed: decides the offsets and orders.
    """

    ids: Ids
    length: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.ids) < 2 * self.length:
            raise InvalidInputError(
                f"a split of the corpus has {len(self.ids)} tokens, but at least {2 * self.length} are "
                f"needed for chunks of {self.length}. Give more text, a larger --held-out-share, or a "
                "smaller --input-length",
                field="corpus",
            )

    @property
    def per_epoch(self) -> int:
        """Number of chunks in an epoch, at any offset."""
        return (len(self.ids) - self.length + 1) // self.length

    def rows(self, first: int, count: int) -> Ids:
        """Chunks `first` .. `first + count - 1` of the endless sequence: [count, N]."""
        starts = np.array([self._start(place) for place in range(first, first + count)])
        return np.asarray(self.ids[starts[:, None] + np.arange(self.length)])

    def _start(self, place: int) -> int:
        epoch, index = divmod(place, self.per_epoch)
        offset, order = _epoch(self.seed, epoch, self.length, self.per_epoch)
        return offset + int(order[index]) * self.length


@lru_cache(maxsize=8)
def _epoch(seed: int, epoch: int, length: int, chunks: int) -> tuple[int, NDArray[np.int64]]:
    return int(below(length, 1, "offset", seed, epoch)[0]), permutation(chunks, "chunks", seed, epoch)
