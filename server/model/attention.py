"""Attention behind one interface: heads before length, so that each head's keys lie together.

Every function takes a `visible` mask made from lengths, never from ids. Scores, bias and softmax are f32.
Masked scores are a large negative number, not minus infinity: a row with nothing visible then averages zeros
instead of making NaN. Values at masked positions must be zero or finite where the caller cannot promise it,
because 0 x NaN is NaN. T5 does not scale queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

MASKED = -1e30
"""f32 score of a masked position: exp(MASKED - any real score) is exactly 0."""


WeightDropout = Callable[[jax.Array], jax.Array]
"""Attention weights [B, H, Q, L] f32 -> the same with some dropped; None outside training."""


class Attention(Protocol):
    """One implementation of attention over whole sequences, chosen by platform."""

    def __call__(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        visible: jax.Array,
        bias: jax.Array | None,
        drop: WeightDropout | None = None,
    ) -> jax.Array:
        """query [B, H, Q, K], key and value [B, H, L, K], visible broadcastable to [B, H, Q, L] (bool), bias
        broadcastable to [B, H, Q, L] (f32) or None -> [B, H, Q, K] in the query's dtype. Weights are dropped
        when training says so."""
        ...


def precision(dtype: jnp.dtype) -> jax.lax.Precision:
    """f32 means f32 on every platform (an accelerator would otherwise round to TF32 or bf16)."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def weights(scores: jax.Array, visible: jax.Array, bias: jax.Array | None) -> jax.Array:
    """Softmax over the last axis of f32 scores plus bias, exactly 0 where not visible (or uniform if nothing
    is)."""
    if bias is not None:
        scores = scores + bias
    scores = jnp.where(visible, scores, MASKED)
    exponential = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    return exponential / exponential.sum(axis=-1, keepdims=True)


def dense_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    visible: jax.Array,
    bias: jax.Array | None,
    drop: WeightDropout | None = None,
) -> jax.Array:
    """`Attention` as two batched products, for every platform."""
    exact = precision(query.dtype)
    scores = jnp.einsum("bhqk,bhlk->bhql", query, key, precision=exact, preferred_element_type=jnp.float32)
    attended = weights(scores, visible, bias)
    if drop is not None:
        attended = drop(attended)
    attended = attended.astype(value.dtype)
    return jnp.einsum("bhql,bhlk->bhqk", attended, value, precision=exact)


def step_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, visible: jax.Array, bias: jax.Array | None
) -> jax.Array:
    """Attention of one token a slot: query [S, H, K], key and value [S, H, L, K], visible broadcastable to
    [S, H, L], bias [S, H, L] or None -> [S, H, K]. Bound by reading keys and values once, so products are
    fused reductions."""
    exact = precision(query.dtype)
    scores = jnp.einsum("shk,shlk->shl", query, key, precision=exact, preferred_element_type=jnp.float32)
    attended = weights(scores, visible, bias).astype(value.dtype)
    return jnp.einsum("shl,shlk->shk", attended, value, precision=exact)
