"""T5's relative position bias. Distances share buckets, which grow logarithmically with distance.

All layers of a stack share one table `[buckets, H]`. The bucket of every distance is computed once on the
host; the device only gathers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from chorus_server.model.config import T5Config

Buckets = np.ndarray[Any, np.dtype[np.int32]]


@lru_cache(maxsize=64)
def _distance_buckets(count: int, buckets: int, max_distance: int) -> Buckets:
    """The bucket, out of `buckets`, of each distance 0 .. count - 1 on one side."""
    exact = buckets // 2
    distance = np.arange(count)
    # Computed in f32 and in this order, like the reference implementations: at powers of two, the logarithm
    # decides the bucket.
    ratio = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact))
    scale = np.float32(np.log(max_distance / exact))
    far = exact + (ratio / scale * np.float32(buckets - exact)).astype(np.int32)
    result = np.where(distance < exact, distance, np.minimum(far, buckets - 1)).astype(np.int32)
    result.setflags(write=False)
    return result


def encoder_buckets(length: int, config: T5Config) -> Buckets:
    """`[2 * length - 1]` buckets for key position minus query position, starting at -(length - 1); both
    directions."""
    half = config.relative_buckets // 2
    one_side = _distance_buckets(length, half, config.relative_max_distance)
    return np.concatenate([one_side[:0:-1], one_side[:1], one_side[1:] + half])


def decoder_buckets(length: int, config: T5Config) -> Buckets:
    """`[length]` buckets for how far back a key is; 0 is the query's own position."""
    return _distance_buckets(length, config.relative_buckets, config.relative_max_distance)


def encoder_bias(table: Float[Array, "buckets H"], length: int, config: T5Config) -> Float32[Array, "H L L"]:
    """Bias for an encoder's self-attention (query, key)."""
    by_offset = table.astype(jnp.float32).T[:, encoder_buckets(length, config)]
    offset = np.arange(length)[None, :] - np.arange(length)[:, None] + length - 1
    return by_offset[:, offset]


def causal_bias(table: Float[Array, "buckets H"], length: int, config: T5Config) -> Float32[Array, "H T T"]:
    """Bias for a decoder's self-attention over a whole target (query, key)."""
    by_distance = table.astype(jnp.float32).T[:, decoder_buckets(length, config)]
    distance = np.maximum(np.arange(length)[:, None] - np.arange(length)[None, :], 0)
    return by_distance[:, distance]


def step_bias(
    table: Float[Array, "buckets H"], positions: Int[Array, "S"], length: int, config: T5Config
) -> Float32[Array, "S H T"]:
    """Bias for one decode step, in which each slot is at its own position. Keys after a slot's position get
    distance 0 and must be masked."""
    by_distance = table.astype(jnp.float32)[decoder_buckets(length, config)]
    distance = jnp.clip(positions[:, None] - jnp.arange(length)[None, :], 0, length - 1)
    return by_distance.at[distance].get(mode="clip").transpose(0, 2, 1)
