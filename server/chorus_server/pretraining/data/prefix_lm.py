"""The LM objective (Raffel et al. 2020, section 3.2; Lester et al. 2021, section 3.2, "LM adaptation").

A chunk of N ids is cut at a place drawn uniformly from 1 .. N - 1. The first part is the input, the rest the
target, and each ends in `</s>` (`random_prefix_noise_mask` of the released code). So inputs and targets are
half empty on average. Here two chunks share a row: one is cut at n, the other at N - n. Both cuts are uniform
draws, and every row is exactly full. Segments keep the two apart.
"""

from __future__ import annotations

import numpy as np

from chorus_server.pretraining.data.randomness import below
from chorus_server.pretraining.data.rows import Rows
from chorus_server.pretraining.data.tokens import Ids


def chunk_length(row_length: int) -> int:
    """N for rows of `row_length`: two parts whose lengths add up to N, and their two `</s>`."""
    return row_length - 2


def pair_rows(chunks: Ids, eos_id: int, *key: str | int) -> Rows:
    """chunks [2 * B, N] -> B rows; L and T are both N + 2."""
    first, second = chunks[0::2], chunks[1::2]
    B, N = first.shape
    cuts = below(N - 1, B, "cuts", *key) + 1
    # Row-wise: input = first[:n] </s> second[:N - n] </s>, target = first[n:] </s> second[N - n:] </s>.
    place = np.arange(N + 2)[None, :]
    inputs = _joined(first, second, place, cuts[:, None], 0, eos_id)
    targets = _joined(first, second, place, (N - cuts)[:, None], 1, eos_id)
    return Rows(
        inputs, np.where(place <= cuts[:, None], 1, 2).astype(np.uint8),
        targets, np.where(place <= (N - cuts)[:, None], 1, 2).astype(np.uint8),
    )  # fmt: skip


def _joined(first: Ids, second: Ids, place: Ids, size: Ids, side: int, eos_id: int) -> Ids:
    """`size` ids of `first`, `</s>`, N - size ids of `second`, `</s>`: from the beginning of each chunk (side
    0) or up to its end (side 1)."""
    N = first.shape[1]
    own = place + side * (N - size)
    other = place - size - 1 + side * size
    ids = np.where(
        place < size,
        np.take_along_axis(first, np.clip(own, 0, N - 1), axis=1),
        np.take_along_axis(second, np.clip(other, 0, N - 1), axis=1),
    )
    ends = (place == size) | (place == N + 1)
    return np.where(ends, eos_id, ids).astype(first.dtype)
