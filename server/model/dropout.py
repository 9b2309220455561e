"""Dropout for training. Every row of a batch has its own key, so that neighbours change nothing.

It is placed and shared as in T5X, the reference implementation of T5 1.1: on the embedded input, on attention
weights, on each block's output, inside the feed-forward, and after the last norm. One mask serves all
positions of a row; for attention weights, all queries. All masks of a stack come from two or three draws,
because a separate draw for each place would multiply compile time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from server.model.layout import Layout, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerDropout:
    """The masks of one layer, or of the two ends of a stack.

    Attributes:
        channel: keep masks [B, D] or [B, F] (bool) for each place.
        attention: keep masks [B, H, L] (bool) for each place.
        rate: scalar f32.
    """

    channel: tuple[jax.Array, ...]
    attention: tuple[jax.Array, ...]
    rate: jax.Array

    def channels(self, place: int, x: jax.Array) -> jax.Array:
        """x [B * C, ..., D] with channels dropped: one mask [D] for each row and all its C targets."""
        mask = self.channel[place]
        return self._dropped(x, mask.reshape(mask.shape[0], *(1,) * (x.ndim - 2), -1))

    def attended(self, place: int, weights: jax.Array) -> jax.Array:
        """Attention weights [B * C, H, Q, L] with keys dropped: one mask [H, L] for each row, all its queries
        and all its C targets."""
        return self._dropped(weights, self.attention[place][:, :, None, :])

    def _dropped(self, x: jax.Array, keep: jax.Array) -> jax.Array:
        if keep.shape[0] != x.shape[0]:
            keep = jnp.repeat(keep, x.shape[0] // keep.shape[0], axis=0)
        return jnp.where(keep, x / (1 - self.rate).astype(x.dtype), 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dropout:
    """A key for each row of a batch, and the share of values to drop.

    Attributes:
        keys: [B] typed PRNG keys.
        rate: scalar f32, at least 0 and below 1.
    """

    keys: jax.Array
    rate: jax.Array

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
    ) -> tuple[LayerDropout, list[list[jax.Array]]]:
        """The masks [B, D] of the ends, and those of each place by layer."""
        kept = self._keep(0, (2 * width + layers * sum(places),))
        ends = LayerDropout((kept[:, :width], kept[:, width : 2 * width]), (), self.rate)
        start, found = 2 * width, []
        for place in places:
            found.append([kept[:, start + n * place : start + (n + 1) * place] for n in range(layers)])
            start += layers * place
        return ends, found

    def _attention(self, place: int, length: int, layers: int, heads: int) -> list[jax.Array]:
        """[B, H, L] for each layer. Drawn position by position, so that longer padding only adds bits at the
        end."""
        kept = self._keep(1 + place, (length, layers, heads))
        return [kept[:, :, n, :].transpose(0, 2, 1) for n in range(layers)]

    def _keep(self, place: int, shape: tuple[int, ...]) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, place), 1 - self.rate, shape)

        kept: jax.Array = jax.vmap(one)(self.keys)
        return kept


def channels(dropout: LayerDropout | None, place: int, x: jax.Array) -> jax.Array:
    """x [B, ..., D] with this place's dropout; unchanged without dropout."""
    return x if dropout is None else dropout.channels(place, x)
