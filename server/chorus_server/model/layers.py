"""The parts of a T5 layer as Flax NNX modules. The paths of parameters are the canonical tensor names of
`parameters`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, BFloat16, Float, Float32

from chorus_server.model.attention import precision
from chorus_server.model.config import T5Config
from chorus_server.model.dropout import LayerDropout, channels
from chorus_server.model.tokens import TokenRows

INNER = 0
"""Place of the feed-forward's own dropout; see `dropout`."""


def parameter(dtype: jnp.dtype, *shape: int) -> nnx.Param:
    """A parameter of this shape. It is only ever made abstractly (`nnx.eval_shape`); values come from a
    checkpoint."""
    return nnx.Param(jnp.zeros(shape, dtype))


def project(x: Float[Array, "*lead I"], weight: nnx.Param) -> Float[Array, "*lead O"]:
    """x [..., I] times weight [I, O] -> [..., O] in the compute dtype; the product is in the weight's."""
    return multiply(x, weight, x.dtype)


def multiply(x: Float[Array, "*lead I"], weight: nnx.Param, dtype: jnp.dtype) -> Float[Array, "*lead O"]:
    """x [..., I] times weight [I, O] -> [..., O] in `dtype`. x is rounded to the weight's dtype; sums are
    f32."""
    matrix = weight[...]
    if matrix.dtype == jnp.bfloat16 and dtype == jnp.float32:
        return narrow_product(x, matrix)
    rounded = x.astype(matrix.dtype)
    return jnp.matmul(rounded, matrix, precision=precision(matrix.dtype), preferred_element_type=dtype)


@jax.custom_vjp
def narrow_product(x: Float[Array, "*lead I"], matrix: BFloat16[Array, "I O"]) -> Float32[Array, "*lead O"]:
    """x [..., I] rounded to bf16, times matrix [I, O], with sums in f32.

    Its gradients are products of the same kind. JAX's own rule multiplies the f32 gradient with the matrix,
    for which XLA widens the whole matrix.
    """
    return _sum_wide("...i,io->...o", x, matrix)


def _sum_wide(axes: str, left: Float[Array, "..."], right: Float[Array, "..."]) -> Float32[Array, "..."]:
    narrow = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jnp.einsum(axes, *narrow, preferred_element_type=jnp.float32)


_Operands = tuple[Float[Array, "*lead I"], BFloat16[Array, "I O"]]


def _forward(
    x: Float[Array, "*lead I"], matrix: BFloat16[Array, "I O"]
) -> tuple[Float32[Array, "*lead O"], _Operands]:
    return narrow_product(x, matrix), (x, matrix)


def _backward(operands: _Operands, gradient: Float32[Array, "*lead O"]) -> _Operands:
    x, matrix = operands
    by_x = _sum_wide("...o,io->...i", gradient, matrix)
    # Where nothing reads it, as in tuning, it is not in the program.
    by_matrix = _sum_wide("...i,...o->io", x, gradient)
    return by_x.astype(x.dtype), by_matrix.astype(matrix.dtype)


narrow_product.defvjp(_forward, _backward)


def rms_norm(x: Float[Array, "*lead D"], scale: nnx.Param, epsilon: float) -> Float[Array, "*lead D"]:
    """x [..., D] divided by its root mean square (f32, no mean subtracted, no bias added), times scale
    [D]."""
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    normal: Array = (wide * jax.lax.rsqrt(mean_square + epsilon)).astype(x.dtype) * scale[...]
    return normal


class FeedForward(nnx.Module):
    """wo(activation(x wi_0) * (x wi_1)) if gated (T5 1.1), else wo(activation(x wi)) (T5 1.0)."""

    def __init__(self, config: T5Config, dtype: jnp.dtype) -> None:
        self.gated = config.gated
        self.activation = config.activation
        if config.gated:
            self.wi_0 = parameter(dtype, config.d_model, config.d_ff)
            self.wi_1 = parameter(dtype, config.d_model, config.d_ff)
        else:
            self.wi = parameter(dtype, config.d_model, config.d_ff)
        self.wo = parameter(dtype, config.d_ff, config.d_model)

    def __call__(
        self, x: Float[Array, "B *rest D"], dropout: LayerDropout | None = None
    ) -> Float[Array, "B *rest D"]:
        if self.gated:
            inner = self._activate(project(x, self.wi_0)) * project(x, self.wi_1)
        else:
            inner = self._activate(project(x, self.wi))
        return project(channels(dropout, INNER, inner), self.wo)

    def _activate(self, x: Float[Array, "*lead F"]) -> Float[Array, "*lead F"]:
        return jax.nn.gelu(x, approximate=True) if self.activation == "gelu" else jax.nn.relu(x)


class Projections(nnx.Module):
    """The four matrices of one attention: [D, H*K] three times, and [H*K, D] back."""

    def __init__(self, config: T5Config, dtype: jnp.dtype) -> None:
        self.heads = config.num_heads
        self.query = parameter(dtype, config.d_model, config.inner_width)
        self.key = parameter(dtype, config.d_model, config.inner_width)
        self.value = parameter(dtype, config.d_model, config.inner_width)
        self.output = parameter(dtype, config.inner_width, config.d_model)

    def split(self, x: Float[Array, "B L D"], weight: nnx.Param) -> Float[Array, "B H L K"]:
        """Each head's part of x times weight."""
        return project(x, weight).reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def join(self, context: Float[Array, "B H L K"]) -> Float[Array, "B L D"]:
        """The heads' contexts beside each other, times the output matrix."""
        batch, heads, length, width = context.shape
        flat = context.transpose(0, 2, 1, 3).reshape(batch, length, heads * width)
        return project(flat, self.output)

    def split_tokens(
        self, x: Float[Array, "T D"], weight: nnx.Param, rows: TokenRows
    ) -> Float[Array, "R H L K"]:
        """`split` for rows on the token axis."""
        return rows.blocks(project(x, weight), self.heads)

    def join_tokens(self, context: Float[Array, "R H L K"], rows: TokenRows) -> Float[Array, "T D"]:
        """`join` for rows on the token axis."""
        return project(rows.tokens(context), self.output)

    def split_step(self, x: Float[Array, "S D"], weight: nnx.Param) -> Float[Array, "S H K"]:
        """`split` for one token a slot."""
        return project(x, weight).reshape(x.shape[0], self.heads, -1)

    def join_step(self, context: Float[Array, "S H K"]) -> Float[Array, "S D"]:
        """`join` for one token a slot."""
        return project(context.reshape(context.shape[0], -1), self.output)
