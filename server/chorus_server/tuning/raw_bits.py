"""Random choices that never change: raw bits of a named stream.

NumPy promises that the raw output of a bit generator stays the same between versions, and promises nothing of
the sort for `permutation` or `choice`. Orders and samples here are made of raw bits alone, so that a job that
is resumed after an upgrade sees the same batches.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def raw_bits(count: int, *name: str | int) -> NDArray[np.uint64]:
    """`count` uint64 of the stream with this name (Philox 4x64 keyed by SHA-256 of the name)."""
    digest = hashlib.sha256("/".join(f"{type(part).__name__}:{part}" for part in name).encode()).digest()
    key = np.frombuffer(digest[:16], "<u8").astype(np.uint64)
    bits: NDArray[np.uint64] = np.asarray(np.random.Philox(key=key).random_raw(count), np.uint64)
    return bits


def shuffled(count: int, *name: str | int) -> NDArray[np.int64]:
    """0 .. count - 1 in an order of the stream's."""
    order: NDArray[np.int64] = np.argsort(raw_bits(count, *name), kind="stable").astype(np.int64)
    return order


def chosen(count: int, population: int, *name: str | int) -> NDArray[np.int64]:
    """`count` of 0 .. population - 1: different ones, or with repetition when there are not enough."""
    if count <= population:
        return shuffled(population, *name)[:count]
    draws: NDArray[np.int64] = (raw_bits(count, *name) % np.uint64(population)).astype(np.int64)
    return draws


def unit_floats(count: int, *name: str | int) -> NDArray[np.float32]:
    """`count` f32 in [0, 1), of 24 bits each."""
    high = (raw_bits(count, *name) >> np.uint64(40)).astype(np.float32)
    return high * np.float32(2.0**-24)
