"""The token axis: rows that lie end to end in one array [T, ...], and how attention sees them.

Products run over tokens, so padding is only what is left at the end of the axis. Attention needs each row by
itself, so it gathers rows into blocks [R, L], where L holds the longest; what it returns is gathered back.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TokenRows:
    """Where each row's tokens are.

    Attributes:
        real: whether a place of the axis belongs to a row.
        row: the row of each token; any row where not real.
        visible: whether a place of a block does.
        block: the token at each place of a block; T where not visible.
        back: the place in the flat blocks of each token; any place where not real.
    """

    real: Bool[Array, "T"]
    row: Int[Array, "T"]
    visible: Bool[Array, "R L"]
    block: Int[Array, "R L"]
    back: Int[Array, "T"]

    def blocks(self, x: Float[Array, "T HK"], heads: int) -> Float[Array, "R H L K"]:
        """Each head's part of each row; 0 beyond a row's length, whatever its neighbours hold."""
        R, L = self.block.shape
        return _to_blocks(x, self._places).reshape(R, L, heads, -1).transpose(0, 2, 1, 3)

    def tokens(self, blocks: Float[Array, "R H L K"]) -> Float[Array, "T HK"]:
        """The heads' parts beside each other, for each token; any row's where not real."""
        R, H, L, K = blocks.shape
        return _to_tokens(blocks.transpose(0, 2, 1, 3).reshape(R, L, H * K), self._places)

    @property
    def _places(self) -> _Places:
        return self.real, self.block, self.back


# A token has one place in the blocks, so the gradient of each gather is the other one. JAX's own rule adds
# the rows of a gradient up one after another, which is slow.
_Places = tuple[Bool[Array, "T"], Int[Array, "R L"], Int[Array, "T"]]
"""`real`, `block` and `back` of `TokenRows`."""


@jax.custom_vjp
def _to_blocks(x: Float[Array, "T W"], places: _Places) -> Float[Array, "R L W"]:
    _, block, _ = places
    return x.at[block].get(mode="fill", fill_value=0)


@jax.custom_vjp
def _to_tokens(blocks: Float[Array, "R L W"], places: _Places) -> Float[Array, "T W"]:
    _, _, back = places
    return blocks.reshape(-1, blocks.shape[-1]).at[back].get(mode="clip")


def _to_blocks_backward(places: _Places, gradient: Float[Array, "R L W"]) -> tuple[Float[Array, "T W"], None]:
    return jnp.where(places[0][:, None], _to_tokens(gradient, places), 0), None


def _to_tokens_backward(places: _Places, gradient: Float[Array, "T W"]) -> tuple[Float[Array, "R L W"], None]:
    return _to_blocks(gradient, places), None


_to_blocks.defvjp(lambda x, places: (_to_blocks(x, places), places), _to_blocks_backward)
_to_tokens.defvjp(lambda blocks, places: (_to_tokens(blocks, places), places), _to_tokens_backward)


def token_rows(starts: Int[Array, "R"], lengths: Int[Array, "R"], tokens: int, longest: int) -> TokenRows:
    """The rows of an axis of T = `tokens`, in blocks of L = `longest`.

    Args:
        starts: ascending; at or after the end of the rows before it for a row that is not used.
        lengths: at most L; 0 for a row that is not used.
    """
    place = jnp.arange(tokens)
    row = jnp.maximum(jnp.searchsorted(starts, place, side="right") - 1, 0)
    inside = place - starts[row]
    visible = jnp.arange(longest) < lengths[:, None]
    return TokenRows(
        real=(inside >= 0) & (inside < lengths[row]),
        row=row,
        visible=visible,
        block=jnp.where(visible, starts[:, None] + jnp.arange(longest), tokens),
        back=row * longest + jnp.clip(inside, 0, longest - 1),
    )
