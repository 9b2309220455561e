"""Dropout for training. Every row of a batch has its own key, so that neighbours change nothing.

It is placed and shared as in T5X, the reference implementation of T5 1.1: on the embedded input, on attention
weights, on each block's output, inside the feed-forward, and after the last norm. One mask serves all
positions of a row; for attention weights, all queries. All masks of a stack come from two or three draws,
because a separate draw for each place would multiply compile time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from chorus_server.model.layout import Layout, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerDropout:
    """The masks of one layer, of all N layers of a scanned stack, or of the two ends of a stack.

    Attributes:
        channel: for each place, which of D or F channels each row keeps, or each token of a token axis.
        attention: for each place, which keys each row keeps.
        rate: share of values that are dropped.
    """

    channel: tuple[Bool[Array, "*N BT _"], ...]
    attention: tuple[Bool[Array, "*N B H _"], ...]
    rate: Float32[Array, "*N"]

    def channels(self, place: int, x: Float[Array, "BC *rest D"]) -> Float[Array, "BC *rest D"]:
        """x [B * C, ..., D] with channels dropped: one mask [D] for each row and all its C targets, or for
        each token of an axis."""
        mask = self.channel[place]
        return self._dropped(x, mask.reshape(mask.shape[0], *(1,) * (x.ndim - 2), -1))

    def attended(self, place: int, weights: Float32[Array, "BC H Q L"]) -> Float32[Array, "BC H Q L"]:
        """Attention weights [B * C, H, Q, L] with keys dropped: one mask [H, L] for each row, all its queries
        and all its C targets."""
        return self._dropped(weights, self.attention[place][:, :, None, :])

    def by_token(self, row: Int[Array, "T"]) -> LayerDropout:
        """The same for rows on a token axis: each token has the channels of its row."""
        return replace(self, channel=tuple(mask[row] for mask in self.channel))

    def _dropped(self, x: Float[Array, "BC *rest"], keep: Bool[Array, "B ..."]) -> Float[Array, "BC *rest"]:
        if keep.shape[0] != x.shape[0]:
            keep = jnp.repeat(keep, x.shape[0] // keep.shape[0], axis=0)
        return jnp.where(keep, x / (1 - self.rate).astype(x.dtype), 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dropout:
    """A key for each row of a batch, and the share of values to drop.

    Attributes:
        keys: typed PRNG keys.
        rate: at least 0 and below 1.
    """

    keys: Key[Array, "B"]
    rate: Float32[Array, ""]

    def at(self, place: int) -> Dropout:
        """Different masks, for another stack."""
        return Dropout(jax.vmap(lambda key: jax.random.fold_in(key, place))(self.keys), self.rate)

    def draw(
        self,
        layout: Layout,
        layers: int,
        width: int,
        places: Sequence[int],
        lengths: Sequence[int],
        heads: int,
    ) -> tuple[LayerDropout, PyTree]:
        """All masks of a stack.

        Args:
            width: D, width of the stack's input and output.
            places: width of each channel mask of a layer.
            lengths: number of keys of each attention of a layer.

        Returns:
            Masks of the stack's input (place 0) and output (place 1), and those of its layers in the form
            that `layout.fold` takes. Both layouts get the same masks.
        """
        ends, inner = self._channels(layers, width, places)
        attention = [self._attention(place, length, layers, heads) for place, length in enumerate(lengths)]
        each = [
            LayerDropout(
                tuple(masks[n] for masks in inner), tuple(masks[n] for masks in attention), self.rate
            )
            for n in range(layers)
        ]
        if layout == "unrolled":
            return ends, tuple(each)
        return ends, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def _channels(
        self, layers: int, width: int, places: Sequence[int]
    ) -> tuple[LayerDropout, list[list[Bool[Array, "B _"]]]]:
        """The masks [B, D] of the ends, and those of each place by layer."""
        kept = self._keep(0, (2 * width + layers * sum(places),))
        ends = LayerDropout((kept[:, :width], kept[:, width : 2 * width]), (), self.rate)
        start, found = 2 * width, []
        for place in places:
            found.append([kept[:, start + n * place : start + (n + 1) * place] for n in range(layers)])
            start += layers * place
        return ends, found

    def _attention(
        self, place: int, length: int, layers: int, heads: int
    ) -> list[Bool[Array, "B {heads} {length}"]]:
        """By layer. Drawn position by position, so that longer padding only adds bits at the end."""
        kept = self._keep(1 + place, (length, layers, heads))
        return [kept[:, :, n, :].transpose(0, 2, 1) for n in range(layers)]

    def _keep(self, place: int, shape: tuple[int, ...]) -> Bool[Array, "B ..."]:
        def one(key: Key[Array, ""]) -> Bool[Array, "..."]:
            return jax.random.bernoulli(jax.random.fold_in(key, place), 1 - self.rate, shape)

        kept: Array = jax.vmap(one)(self.keys)
        return kept


def channels(
    dropout: LayerDropout | None, place: int, x: Float[Array, "B *rest D"]
) -> Float[Array, "B *rest D"]:
    """x with this place's dropout; unchanged without dropout."""
    return x if dropout is None else dropout.channels(place, x)
