"""Random choices that are a pure function of their key. The batch of any step can be made again without those
before it, and no release of numpy changes it."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def bits(count: int, *key: str | int) -> NDArray[np.uint64]:
    """`count` random 64-bit words (Philox 4x64, with the SHA-256 of `key` as its key)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    words: NDArray[np.uint64] = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return words


def permutation(count: int, *key: str | int) -> NDArray[np.int64]:
    """The numbers 0 .. count - 1 in a random order."""
    return np.argsort(bits(count, *key), kind="stable").astype(np.int64)


def below(limit: int, count: int, *key: str | int) -> NDArray[np.int64]:
    """`count` numbers from 0 to limit - 1, all equally likely (within limit / 2**64)."""
    return (bits(count, *key) % np.uint64(limit)).astype(np.int64)
