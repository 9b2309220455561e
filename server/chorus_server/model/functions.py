"""Pure functions over a model's parameters, which the engine compiles. Masks come from lengths, never from
ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from chorus_server.model.attention import Attention
from chorus_server.model.config import T5Config
from chorus_server.model.dropout import Dropout
from chorus_server.model.fused_attention import ATTENTION_FUNCTIONS, AttentionKind
from chorus_server.model.layout import Layout, PyTree
from chorus_server.model.mesh import DeviceMesh
from chorus_server.model.network import T5
from chorus_server.model.tokens import token_rows
from chorus_server.model.trees import Trees

TARGET_CHUNK = 256
"""For how many target positions, or nodes of trees, logits exist at once."""


@dataclass(frozen=True)
class Functions:
    """A model without its parameters. It is hashable, so that it can be a closure or a static jit argument.

    Attributes:
        graph: the NNX structure; `nnx.merge(graph, params)` at trace time costs nothing at run time.
        dtype: compute dtype of encodings, memory and cache, and of parameters that are not matrices.
        matrix_dtype: dtype of the matrices, and of their products. The embedding is a table, not a matrix.
        mesh: where the parameters live; None means one device.
        attention: attention of whole sequences. A decode step has its own.
    """

    config: T5Config
    layout: Layout
    dtype: Any
    graph: Any
    matrix_dtype: Any
    mesh: DeviceMesh | None = None
    attention: AttentionKind = "xla"

    @property
    def groups(self) -> int:
        """Number of groups of devices that share the rows of a batch."""
        return 1 if self.mesh is None else self.mesh.data

    @property
    def devices(self) -> int:
        """Number of devices that share the model."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def slot_axis(self) -> int:
        """The slot (batch) axis of every leaf of memory and cache."""
        return 0 if self.layout == "unrolled" else 1

    @property
    def memory_length_axis(self) -> int:
        """The position axis of every leaf of memory and cache."""
        return self.slot_axis + 2

    def encode(
        self,
        params: PyTree,
        prompt_rows: Float[Array, "R D"],
        ids: Int[Array, "B L"],
        lengths: Int[Array, "B"],
        dropout: Dropout | None = None,
    ) -> Float[Array, "B L D"]:
        """Encoder pass; R is at least 1.

        Ids below V (padded) are embedding rows; V + r is prompt row r. The result is 0 beyond lengths. NaN in
        prompt rows that a row does not use, or in another row of the batch, never reaches it. Training passes
        `dropout` with a key for each of the B rows.
        """
        return self._merge(params).encode(prompt_rows, ids, lengths, self._attend, dropout)

    def encode_tokens(
        self,
        params: PyTree,
        prompt_rows: Float[Array, "P D"],
        ids: Int[Array, "T"],
        starts: Int[Array, "R"],
        lengths: Int[Array, "R"],
        longest: int,
        dropout: Dropout | None = None,
    ) -> Float[Array, "T D"]:
        """`encode` for R rows that lie end to end, none longer than `longest`; 0 where there is no row.

        Args:
            starts: ascending, where each row begins; at or after the end of the rows before it for a row that
                is not used.
            lengths: 0 for a row that is not used.
        """
        rows = token_rows(starts, lengths, ids.shape[0], longest)
        return self._merge(params).encode_tokens(prompt_rows, ids, rows, self._attend, dropout)

    def token_memory(self, params: PyTree, encoded: Float[Array, "T D"]) -> PyTree:
        """Cross-attention keys and values by token: leaves [T, H*K] (unrolled) or [N, T, H*K] (scanned)."""
        return self._merge(params).decoder.token_memory(encoded)

    def row_memory(
        self, tokens: PyTree, starts: Int[Array, "R"], lengths: Int[Array, "R"], length: int
    ) -> PyTree:
        """Memory of R rows from keys and values by token: leaves [R, H, L, K] (unrolled) or [N, R, H, L, K]
        (scanned) with L = `length`, 0 beyond lengths."""
        block = starts[:, None] + jnp.arange(length)
        block = jnp.where(_before(lengths, length), block, jax.tree.leaves(tokens)[0].shape[-2])

        def gather(leaf: Float[Array, "*N T HK"]) -> Float[Array, "*N R H L K"]:
            rows = leaf.at[..., block, :].get(mode="fill", fill_value=0)
            return jnp.swapaxes(rows.reshape(*rows.shape[:-1], self.config.num_heads, -1), -2, -3)

        return jax.tree.map(gather, tokens)

    def init_tokens(self, count: int) -> PyTree:
        """Zeros in the shape of the keys and values of `count` tokens."""
        config, layers = self.config, self.config.num_decoder_layers
        shape = (count, config.inner_width)
        if self.layout == "unrolled":
            return tuple({n: jnp.zeros(shape, self.dtype) for n in ("key", "value")} for _ in range(layers))
        return {n: jnp.zeros((layers, *shape), self.dtype) for n in ("key", "value")}

    def encoder_memory(
        self, params: PyTree, encoded: Float[Array, "B L D"], lengths: Int[Array, "B"]
    ) -> PyTree:
        """Cross-attention keys and values: leaves [B, H, L, K] (unrolled) or [N, B, H,
        L, K] (scanned), 0 beyond lengths."""
        real = jnp.arange(encoded.shape[1])[None, :] < lengths[:, None]
        return self._merge(params).decoder.memory(jnp.where(real[:, :, None], encoded, 0))

    def init_memory(self, slots: int, length: int) -> PyTree:
        """Zeros in the shape of the memory for `slots` inputs of `length` positions."""
        return self._zeros(slots, length)

    def init_cache(self, slots: int, new_tokens: int) -> PyTree:
        """Zeros in the shape of the self-attention keys and values for `slots` slots of `new_tokens`
        positions."""
        return self._zeros(slots, new_tokens)

    def decode_step(
        self,
        params: PyTree,
        cache: PyTree,
        memory: PyTree,
        memory_lengths: Int[Array, "M"],
        tokens: Int[Array, "S"],
        positions: Int[Array, "S"],
        memory_index: Int[Array, "S"] | None = None,
    ) -> tuple[Float32[Array, "S V"], PyTree]:
        """One token for each slot, each at its own position.

        Args:
            cache: self-attention state of S slots. Donate it, and it is updated in place.
            memory: encoder memory of M inputs, 0 beyond their lengths.
            tokens: the last token of each slot (`decoder_start_id` at position 0).
            positions: below the cache's length.
            memory_index: the input that each slot reads; if None, slot s reads input s.

        Returns:
            Logits for the next token, and the cache with these tokens added.
        """
        return self._merge(params).step(cache, memory, memory_lengths, tokens, positions, memory_index)

    def decode_targets(
        self,
        params: PyTree,
        encoded: Float[Array, "B L D"],
        lengths: Int[Array, "B"],
        targets: Int[Array, "B C T"],
        target_lengths: Int[Array, "B C"],
        dropout: Dropout | None = None,
    ) -> Float32[Array, "B C T V"]:
        """Teacher forcing: logits of each target token (0 beyond target_lengths). The C targets of an input
        share it, and its dropout where training passes one."""
        module = self._merge(params)
        clean = self._clean(encoded, lengths)
        hidden = module.hidden_targets(clean, lengths, targets, self._attend, dropout)
        logits = module.logits(hidden)
        return jnp.where(_before(target_lengths, targets.shape[2])[..., None], logits, 0)

    def decode_token_targets(
        self,
        params: PyTree,
        encoded: Float[Array, "tokens D"],
        starts: Int[Array, "R"],
        lengths: Int[Array, "R"],
        longest: int,
        targets: Int[Array, "R C T"],
        target_lengths: Int[Array, "R C"],
        dropout: Dropout | None = None,
    ) -> Float32[Array, "R C T V"]:
        """`decode_targets` for inputs that `encode_tokens` encoded."""
        module = self._merge(params)
        rows = token_rows(starts, lengths, encoded.shape[0], longest)
        hidden = module.hidden_targets_of_tokens(encoded, rows, targets, self._attend, dropout)
        return jnp.where(_before(target_lengths, targets.shape[2])[..., None], module.logits(hidden), 0)

    def target_log_probabilities(
        self,
        params: PyTree,
        encoded: Float[Array, "B L D"],
        lengths: Int[Array, "B"],
        targets: Int[Array, "B C T"],
        target_lengths: Int[Array, "B C"],
    ) -> Float32[Array, "B C"]:
        """Like `decode_targets`, but the sum of log p(token) over each target; 0 for an empty target.

        Logits exist for only `TARGET_CHUNK` positions at a time.
        """
        module = self._merge(params)
        hidden = module.hidden_targets(self._clean(encoded, lengths), lengths, targets, self._attend)
        flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
        chosen = jax.lax.map(
            lambda row: _log_probability(module.logits(row[0]), row[1]), _chunks(flat, wanted)
        )
        each = chosen.reshape(-1)[: wanted.shape[0]].reshape(targets.shape)
        return jnp.where(_before(target_lengths, targets.shape[2]), each, 0).sum(axis=-1)

    def tree_log_probabilities(
        self, params: PyTree, memory: PyTree, lengths: Int[Array, "B"], trees: Trees
    ) -> Float32[Array, "B E"]:
        """log p(piece) of each edge of trees, from their inputs' encoder memory; any number where there is no
        edge.

        Logits exist for only `TARGET_CHUNK` nodes at a time, or for one tree if it has more.
        """
        module = self._merge(params)
        hidden = module.hidden_trees(memory, lengths, trees, self._attend)

        def of_some(part: tuple[Array, Array, Array]) -> Float32[Array, "some E"]:
            nodes, sources, pieces = part
            some, J, _ = nodes.shape
            logits = module.logits(nodes.reshape(some * J, -1))
            place = jnp.arange(some)[:, None] * J + sources
            return _of_edges(logits, jax.nn.logsumexp(logits, axis=1), place, pieces)

        B, J, _ = hidden.shape
        together = max(n for n in range(1, B + 1) if B % n == 0 and (n == 1 or n * J <= TARGET_CHUNK))
        parts = (hidden, trees.sources, trees.pieces)
        if together == B:
            return of_some(parts)
        groups = jax.tree.map(lambda leaf: leaf.reshape(-1, together, *leaf.shape[1:]), parts)
        mapped: Array = jax.lax.map(of_some, groups)
        return mapped.reshape(B, -1)

    def log_probabilities_of_one(
        self, params: PyTree, memory: PyTree, lengths: Int[Array, "1"], trees: Sequence[Trees]
    ) -> tuple[Float32[Array, "C E"], ...]:
        """`tree_log_probabilities` for trees of several sizes of one input, all in one pass: for each size
        those of its C trees."""
        module = self._merge(params)
        logits = module.logits(module.hidden_trees_of_one(memory, lengths, trees, self._attend))
        normaliser, found, start = jax.nn.logsumexp(logits, axis=1), [], 0
        for each in trees:
            C, J = each.tokens.shape
            place = start + jnp.arange(C)[:, None] * J + each.sources
            found.append(_of_edges(logits, normaliser, place, each.pieces))
            start += C * J
        return tuple(found)

    @property
    def _attend(self) -> Attention:
        return ATTENTION_FUNCTIONS[self.attention]

    def _merge(self, params: PyTree) -> T5:
        module: T5 = nnx.merge(self.graph, params)
        return module

    def _clean(self, encoded: Float[Array, "B L D"], lengths: Int[Array, "B"]) -> Float[Array, "B L D"]:
        return jnp.where(_before(lengths, encoded.shape[1])[..., None], encoded, 0)

    def _zeros(self, slots: int, length: int) -> PyTree:
        config = self.config
        shape = (slots, config.num_heads, length, config.d_kv)
        layers = config.num_decoder_layers
        if self.layout == "unrolled":
            return tuple({n: jnp.zeros(shape, self.dtype) for n in ("key", "value")} for _ in range(layers))
        return {n: jnp.zeros((layers, *shape), self.dtype) for n in ("key", "value")}


def _before(lengths: Int[Array, "*rows"], length: int) -> Bool[Array, "*rows {length}"]:
    return jnp.arange(length) < lengths[..., None]


def _of_edges(
    logits: Float32[Array, "M V"],
    normaliser: Float32[Array, "M"],
    place: Int[Array, "C E"],
    pieces: Int[Array, "C E"],
) -> Float32[Array, "C E"]:
    return logits.at[place, pieces].get(mode="clip") - normaliser.at[place].get(mode="clip")


def _log_probability(logits: Float32[Array, "M V"], wanted: Int[Array, "M"]) -> Float32[Array, "M"]:
    picked = jnp.take_along_axis(logits, wanted[:, None], axis=1, mode="clip")[:, 0]
    return picked - jax.nn.logsumexp(logits, axis=1)


def _chunks(
    flat: Float[Array, "M D"], wanted: Int[Array, "M"]
) -> tuple[Float[Array, "chunks size D"], Int[Array, "chunks size"]]:
    """Padded, and split into chunks of TARGET_CHUNK rows, or of M if that is less."""
    size = min(TARGET_CHUNK, flat.shape[0])
    spare = -flat.shape[0] % size
    flat = jnp.pad(flat, ((0, spare), (0, 0))).reshape(-1, size, flat.shape[1])
    return flat, jnp.pad(wanted, (0, spare)).reshape(-1, size)
