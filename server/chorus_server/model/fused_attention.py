"""Attention that never writes its scores to memory: cuDNN's kernel on an NVIDIA card, in bf16.

It takes lengths, not masks, so `visible` must come from lengths: [B, 1, 1, L]. What it does not take (f32,
causal targets, dropout, odd lengths) goes to `dense_attention`, which every other platform uses too (a single
CPU takes two rows at a time).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from chorus_server.errors import InvalidInputError
from chorus_server.model.attention import Attention, WeightDropout, dense_attention, paired_attention

AttentionKind = Literal["xla", "pairs", "cudnn"]


def fused_attention(
    query: Float[Array, "B H Q K"],
    key: Float[Array, "B H L K"],
    value: Float[Array, "B H L K"],
    visible: Bool[Array, "#B #H #Q #L"],
    bias: Float32[Array, "#B #H #Q #L"] | None,
    drop: WeightDropout | None = None,
    implementation: Any = "cudnn",
) -> Float[Array, "B H Q K"]:
    """`Attention` by cuDNN where possible. The softmax inside is f32; the bias is rounded to the query's
    dtype.

    Args:
        implementation: as in `jax.nn.dot_product_attention`; `xla` is for tests on other platforms.
    """
    if drop is not None or not _takes(query, key, visible):
        return dense_attention(query, key, value, visible, bias, drop)
    lengths = jnp.broadcast_to(visible[:, 0, 0, :].sum(axis=-1, dtype=jnp.int32), query.shape[:1])
    # Heads come second in our arrays and third in the library's; XLA merges these transpositions with those
    # around them.
    context: jax.Array = jax.nn.dot_product_attention(
        query.transpose(0, 2, 1, 3),
        key.transpose(0, 2, 1, 3),
        value.transpose(0, 2, 1, 3),
        None if bias is None else bias.astype(query.dtype),
        scale=1.0,  # T5 does not scale
        key_value_seq_lengths=lengths,
        implementation=implementation,
    )
    return context.transpose(0, 2, 1, 3)


def _takes(
    query: Float[Array, "B H Q K"], key: Float[Array, "B H L K"], visible: Bool[Array, "#B #H #Q #L"]
) -> bool:
    by_lengths = visible.ndim == 4 and visible.shape[1:3] == (1, 1)
    fits = query.shape[3] % 8 == 0 and query.shape[3] <= 128
    even = query.shape[2] % 2 == 0 and key.shape[2] % 2 == 0  # its backward pass needs even lengths
    return bool(by_lengths and fits and even and query.dtype == jnp.bfloat16)


ATTENTION_FUNCTIONS: dict[AttentionKind, Attention] = {
    "xla": dense_attention,
    "pairs": paired_attention,
    "cudnn": fused_attention,
}


def probe_cudnn() -> None:
    """Compile and run a small example. Raises whatever JAX or cuDNN raise if it does not work."""
    heads = jnp.ones((2, 2, 16, 64), jnp.bfloat16)
    visible = jnp.arange(16)[None, None, None, :] < jnp.array([3, 16])[:, None, None, None]
    bias = jnp.zeros((1, 2, 16, 16), jnp.float32)
    jax.jit(partial(fused_attention))(heads, heads, heads, visible, bias).block_until_ready()


def choose_attention(
    wanted: Literal["auto", "xla", "cudnn"],
    dtype: Any,
    *,
    platform: str | None = None,
    probe: Callable[[], None] = probe_cudnn,
    devices: int = 1,
) -> tuple[AttentionKind, str]:
    """Choose the kind of attention to compile. Returns it, and the reason.

    Args:
        wanted: `auto` takes cuDNN on an NVIDIA card in bf16 if the probe passes, pairs of rows on a single
            CPU device, else XLA.
        platform: if None, JAX is asked.
        probe: raises if cuDNN does not work.
        devices: number of devices that share the model.

    Raises:
        InvalidInputError: `cudnn` was requested and is not available; says why.
    """
    platform = platform or jax.default_backend()
    if wanted == "xla":
        return "xla", "asked for"
    if wanted == "auto" and platform == "cpu" and devices == 1:
        return "pairs", "a CPU computes the products of several pairs of rows at once"
    reason = ""
    if platform not in ("gpu", "cuda"):
        reason = f"the platform is {platform}"
    elif jnp.dtype(dtype) != jnp.bfloat16:
        reason = f"cuDNN computes in bfloat16, but the model in {jnp.dtype(dtype).name}"
    else:
        try:
            probe()
        except Exception as error:  # JAX, XLA and cuDNN each raise their own
            first = (str(error).splitlines() or [""])[0]
            reason = f"cuDNN does not work here ({type(error).__name__}: {first[:160]})"
    if not reason:
        return "cudnn", "the probe passed"
    if wanted == "cudnn":
        raise InvalidInputError(
            f"attention is cudnn, but {reason}: set attention to auto or xla", field="attention"
        )
    return "xla", reason
