"""Attention behind one interface. Heads come before length, so that the keys of each head are next to each
other.

Every function takes a `visible` mask made from lengths, never from ids. Scores, bias and softmax are f32.
Masked scores are a large negative number, not minus infinity, so a row with nothing visible averages zeros
instead of making NaN. If the caller cannot promise that values at masked positions are finite, it must set
them to zero, because 0 x NaN is NaN. T5 does not scale queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Shaped

MASKED = -1e30
"""f32 score of a masked position. exp(MASKED - any real score) is exactly 0."""


WeightDropout = Callable[[Float32[Array, "B H Q L"]], Float32[Array, "B H Q L"]]
"""Takes attention weights, before their division, and returns them with some dropped; None outside
training."""


@runtime_checkable
class Attention(Protocol):
    """One implementation of attention over whole sequences. The platform decides which is used."""

    def __call__(
        self,
        query: Float[Array, "B H Q K"],
        key: Float[Array, "B H L K"],
        value: Float[Array, "B H L K"],
        visible: Bool[Array, "#B #H #Q #L"],
        bias: Float32[Array, "#B #H #Q #L"] | None,
        drop: WeightDropout | None = None,
    ) -> Float[Array, "B H Q K"]:
        """query [B, H, Q, K], key and value [B, H, L, K], visible broadcastable to [B, H, Q, L] (bool), bias
        broadcastable to [B, H, Q, L] (f32) or None -> [B, H, Q, K] in the query's dtype. Weights are dropped
        if training asks for it."""
        ...


def precision(dtype: jnp.dtype) -> jax.lax.Precision:
    """f32 means f32 on every platform (an accelerator would otherwise round to TF32 or bf16)."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def exponentials(
    scores: Float32[Array, "*lead L"],
    visible: Bool[Array, "*#lead #L"],
    bias: Float32[Array, "*#lead L"] | None,
) -> tuple[Float32[Array, "*lead L"], Float32[Array, "*lead 1"]]:
    """Numerators [..., L] and denominators [..., 1] of the softmax over the last axis of f32 scores plus
    bias. Numerators are exactly 0 where not visible, or all 1 if nothing is visible."""
    if bias is not None:
        scores = scores + bias
    scores = jnp.where(visible, scores, MASKED)
    exponential = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    return exponential, exponential.sum(axis=-1, keepdims=True)


def dense_attention(
    query: Float[Array, "B H Q K"],
    key: Float[Array, "B H L K"],
    value: Float[Array, "B H L K"],
    visible: Bool[Array, "#B #H #Q #L"],
    bias: Float32[Array, "#B #H #Q #L"] | None,
    drop: WeightDropout | None = None,
) -> Float[Array, "B H Q K"]:
    """`Attention` as two batched products, for every platform."""
    exact = precision(query.dtype)
    scores = jnp.einsum("bhqk,bhlk->bhql", query, key, precision=exact, preferred_element_type=jnp.float32)
    attended, total = exponentials(scores, visible, bias)
    if drop is not None:
        attended = drop(attended)
    context = jnp.einsum(
        "bhql,bhlk->bhqk",
        attended.astype(value.dtype),
        value,
        precision=exact,
        preferred_element_type=jnp.float32,
    )
    # Divide after the product: one pass over [Q, K] instead of one over [Q, L].
    return (context / total).astype(value.dtype)


PAIR = 2
"""How many rows `paired_attention` multiplies together."""

SHORT = 16
"""Up to this many keys, as labels have, products are too small to gain from running beside each other, and
each pair is one more part of the program to compile."""


def paired_attention(
    query: Float[Array, "B H Q K"],
    key: Float[Array, "B H L K"],
    value: Float[Array, "B H L K"],
    visible: Bool[Array, "#B #H #Q #L"],
    bias: Float32[Array, "#B #H #Q #L"] | None,
    drop: WeightDropout | None = None,
) -> Float[Array, "B H Q K"]:
    """`Attention` for a CPU: the same numbers as `dense_attention`, two rows at a time.

    XLA runs the many small products of a batch one after another on one core. Pairs do not depend on each
    other, so XLA runs one pair's products beside those of the next.
    """
    batch = query.shape[0]
    if drop is not None or batch <= PAIR or batch % PAIR or key.shape[2] <= SHORT:
        return dense_attention(query, key, value, visible, bias, drop)
    masks = _pairs(visible) if visible.shape[0] == batch else [visible] * (batch // PAIR)
    own = _pairs(bias) if bias is not None and bias.shape[0] == batch else [bias] * (batch // PAIR)
    parts = zip(_pairs(query), _pairs(key), _pairs(value), masks, own, strict=True)
    return jnp.concatenate([dense_attention(*part) for part in parts])


def _pairs(x: Shaped[Array, "B ..."]) -> list[Shaped[Array, "_ ..."]]:
    return jnp.split(x, x.shape[0] // PAIR)


def step_attention(
    query: Float[Array, "S H K"],
    key: Float[Array, "S H L K"],
    value: Float[Array, "S H L K"],
    visible: Bool[Array, "#S #H L"],
    bias: Float32[Array, "S H L"] | None,
) -> Float[Array, "S H K"]:
    """Attention of one token for each slot. Reading keys and values once is what takes the time, so products
    are fused reductions."""
    exact = precision(query.dtype)
    scores = jnp.einsum("shk,shlk->shl", query, key, precision=exact, preferred_element_type=jnp.float32)
    attended, total = exponentials(scores, visible, bias)
    return jnp.einsum("shl,shlk->shk", (attended / total).astype(value.dtype), value, precision=exact)
