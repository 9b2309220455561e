"""Targets of one input as a tree: what two of them begin with is computed once.

A node stands for what the decoder has read: the start at the root, one piece more at each child. An edge is a
piece that comes next, so a target's log probability is a sum over edges, from the root to its last piece.
Nodes are in preorder: those below node j are the places from j + 1 up to one number, its *end*. Masks follow
from these numbers, never from ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from chorus_server.model.config import T5Config
from chorus_server.model.relative import decoder_buckets


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Trees:
    """A tree for each of B inputs, of at most J nodes and E edges. Its fields are not checked for their
    shapes, because JAX makes it of other things than arrays too.

    Attributes:
        tokens: `[B, J]` i32, what the decoder reads last at each node: `decoder_start_id` at the root, else a
            piece.
        depths: `[B, J]` i32, how many pieces it has read; 0 at the root, and where there is no node.
        ends: `[B, J]` i32, place + 1 + how many nodes are below; place + 1 where there is no node, which so
            sees only itself.
        sources: `[B, E]` i32, the node that each edge begins at; any node where there is no edge.
        pieces: `[B, E]` i32, the id that each edge stands for.
    """

    tokens: Array
    depths: Array
    ends: Array
    sources: Array
    pieces: Array

    def visible(self) -> Array:
        """Whether a node sees another, itself and those above it: `[B, 1, J, J]` bool."""
        place = jnp.arange(self.ends.shape[1])
        seen = (place[None, :] <= place[:, None]) & (place[:, None] < self.ends[:, None, :])
        return seen[:, None]

    def bias(self, table: Array, config: T5Config) -> Array:
        """The decoder's position bias between nodes, by how far one is above the other: `[B, H, J, J]` f32
        from the table `[buckets, H]`. It means nothing where one does not see the other."""
        most = self.depths.shape[1]
        by_distance = table.astype(jnp.float32)[decoder_buckets(most, config)]
        distance = jnp.clip(self.depths[:, :, None] - self.depths[:, None, :], 0, most - 1)
        return by_distance.at[distance].get(mode="clip").transpose(0, 3, 1, 2)
