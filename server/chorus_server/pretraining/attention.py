"""Attention for training: the same numbers computed in several ways, and rows that hold several examples.

Serving knows nothing of segments. The model gives its attention a mask made from lengths; the function here
also looks at the segments of both sides. Relative positions need no change: T5's bias depends on distances,
and distances inside a segment are the same as if it stood alone.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Integer

from chorus_server.model.attention import Attention, WeightDropout, dense_attention
from chorus_server.pretraining import settings


def attention_of(name: settings.PretrainingAttention) -> Attention:
    """`dense` is the attention of serving, `fused` is JAX's own for any platform, `cudnn` is NVIDIA's."""
    if name == "dense":
        return dense_attention
    return partial(_library_attention, "cudnn" if name == "cudnn" else "xla")


def within_segments(attend: Attention, segments: Integer[Array, "B L"]) -> Attention:
    """Self-attention of an encoder. Segments keep the examples of a row apart."""
    return partial(_separated, attend, segments, segments)


def decoder_segments(
    attend: Attention, inputs: Integer[Array, "B L"], targets: Integer[Array, "B T"]
) -> Attention:
    """A decoder's two attentions, by the segments of both sides. In T5, the attention to the encoder is the
    one without a position bias."""

    def run(
        query: Float[Array, "B H Q K"], key: Float[Array, "B H L K"], value: Float[Array, "B H L K"],
        visible: Bool[Array, "#B #H #Q #L"], bias: Float32[Array, "#B #H #Q #L"] | None,
        drop: WeightDropout | None = None,
    ) -> Float[Array, "B H Q K"]:  # fmt: skip
        keys = inputs if bias is None else targets
        return _separated(attend, targets, keys, query, key, value, visible, bias, drop)

    return run


def _separated(
    attend: Attention, query_segments: Integer[Array, "B Q"], key_segments: Integer[Array, "B L"],
    query: Float[Array, "B H Q K"], key: Float[Array, "B H L K"], value: Float[Array, "B H L K"],
    visible: Bool[Array, "#B #H #Q #L"], bias: Float32[Array, "#B #H #Q #L"] | None,
    drop: WeightDropout | None = None,
) -> Float[Array, "B H Q K"]:  # fmt: skip
    same = query_segments[:, None, :, None] == key_segments[:, None, None, :]
    return attend(query, key, value, visible & same, bias, drop)


def _library_attention(
    implementation: Literal["xla", "cudnn"], query: Float[Array, "B H Q K"], key: Float[Array, "B H L K"],
    value: Float[Array, "B H L K"], visible: Bool[Array, "#B #H #Q #L"],
    bias: Float32[Array, "#B #H #Q #L"] | None, drop: WeightDropout | None = None,
) -> Float[Array, "B H Q K"]:  # fmt: skip
    """`Attention` by `jax.nn.dot_product_attention`, which has length before heads, and must not scale
    here."""
    assert drop is None, "dropout is off in pretraining"
    B, H, Q, _ = query.shape
    L = key.shape[2]
    swap = partial(jnp.swapaxes, axis1=1, axis2=2)
    if bias is not None:
        bias = jnp.broadcast_to(bias.astype(query.dtype), (1, H, Q, L))
    visible = jnp.broadcast_to(visible, (B, 1, Q, L))
    context = jax.nn.dot_product_attention(
        swap(query), swap(key), swap(value), bias=bias, mask=visible, scale=1.0, implementation=implementation
    )
    return swap(context)
