"""The whole T5: one embedding table for text and prompts, encoder, decoder, head."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from chorus_server.model.attention import Attention, dense_attention, precision
from chorus_server.model.config import T5Config
from chorus_server.model.dropout import Dropout
from chorus_server.model.layers import multiply, parameter
from chorus_server.model.layout import Layout, PyTree
from chorus_server.model.mesh import DeviceMesh
from chorus_server.model.stacks import Decoder, Encoder
from chorus_server.model.tokens import TokenRows
from chorus_server.model.trees import Trees


class T5(nnx.Module):
    """Encoder-decoder with a shared embedding. Masks come from lengths; values beyond a length are 0."""

    def __init__(
        self, config: T5Config, layout: Layout, dtype: jnp.dtype, mesh: DeviceMesh | None = None
    ) -> None:
        self.config = config
        self.mesh = mesh
        self.embedding = parameter(dtype, config.padded_vocab_size, config.d_model)
        self.encoder = Encoder(config, layout, dtype)
        self.decoder = Decoder(config, layout, dtype)
        if not config.tied:
            self.head = parameter(dtype, config.d_model, config.padded_vocab_size)

    def encode(
        self, prompt_rows: Float[Array, "R D"], ids: Int[Array, "B L"], lengths: Int[Array, "B"],
        attend: Attention = dense_attention, dropout: Dropout | None = None,
    ) -> Float[Array, "B L D"]:  # fmt: skip
        """The encoder's output, 0 beyond lengths."""
        real = visible(lengths, ids.shape[1])
        drop = None if dropout is None else dropout.at(0)
        return self.encoder(self.embed(prompt_rows, ids, real), real, attend, drop)

    def encode_tokens(
        self, prompt_rows: Float[Array, "R D"], ids: Int[Array, "T"], rows: TokenRows,
        attend: Attention = dense_attention, dropout: Dropout | None = None,
    ) -> Float[Array, "T D"]:  # fmt: skip
        """The encoder's output for rows on the token axis, 0 where there is none."""
        x = self.embed(prompt_rows, ids[None], rows.real[None])[0]
        drop = None if dropout is None else dropout.at(0)
        return self.encoder.tokens(self._whole(x), rows, attend, drop)

    def embed(
        self, prompt_rows: Float[Array, "R D"], ids: Int[Array, "B L"], real: Bool[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        """Ids below V are embedding rows, V + r is prompt row r. The result is 0 where not real, whatever
        those rows hold."""
        V = self.config.padded_vocab_size
        text = self.embedding[...].at[jnp.where(ids < V, ids, 0)].get(mode="clip")
        prompt = prompt_rows.astype(text.dtype).at[jnp.where(ids < V, 0, ids - V)].get(mode="clip")
        x = jnp.where((ids < V)[:, :, None], text, prompt)
        return self._whole(jnp.where(real[:, :, None], x, 0))

    def step(
        self, cache: PyTree, memory: PyTree, memory_lengths: Int[Array, "M"], tokens: Int[Array, "S"],
        positions: Int[Array, "S"], memory_index: Int[Array, "S"] | None,
    ) -> tuple[Float32[Array, "S V"], PyTree]:  # fmt: skip
        """Logits for the next token of each slot, and the cache with these tokens added."""
        first = jax.tree.leaves(memory)[0]
        real = visible(memory_lengths, first.shape[-2])
        if memory_index is not None:
            real = real[memory_index]
        new_tokens = jax.tree.leaves(cache)[0].shape[-2]
        x = self._whole(self.embedding[...].at[tokens].get(mode="clip"))
        x, cache = self.decoder.step(x, cache, memory, real, positions, new_tokens, memory_index)
        logits = self.logits(x)
        if self.mesh is not None:
            # Choosing a token looks at a whole row many times, so gather it once. This is written in two
            # steps, because the partitioner would otherwise gather the head, which is thousands of times
            # larger.
            logits = self._whole(self.mesh.cut_logits(logits))
        return logits, cache

    def hidden_targets(
        self, encoded: Float[Array, "B L D"], lengths: Int[Array, "B"], targets: Int[Array, "B C T"],
        attend: Attention = dense_attention, dropout: Dropout | None = None,
    ) -> Float[Array, "B C T D"]:  # fmt: skip
        """Teacher forcing: the decoder's output for each target."""
        drop, real = None if dropout is None else dropout.at(1), visible(lengths, encoded.shape[1])
        return self.decoder.targets(self._shifted(targets), encoded, real, attend, drop)

    def hidden_targets_of_tokens(
        self, encoded: Float[Array, "tokens D"], rows: TokenRows, targets: Int[Array, "R C T"],
        attend: Attention = dense_attention, dropout: Dropout | None = None,
    ) -> Float[Array, "R C T D"]:  # fmt: skip
        """The same for inputs on the token axis."""
        drop = None if dropout is None else dropout.at(1)
        return self.decoder.targets_of_tokens(self._shifted(targets), encoded, rows, attend, drop)

    def hidden_trees(
        self, memory: PyTree, lengths: Int[Array, "B"], trees: Trees, attend: Attention = dense_attention
    ) -> Float[Array, "B J D"]:
        """The decoder's output at each node of trees, from their inputs' encoder memory."""
        real = visible(lengths, jax.tree.leaves(memory)[0].shape[-2])
        x = self._whole(self.embedding[...].at[trees.tokens].get(mode="clip"))
        return self.decoder.trees(x, trees, memory, real, attend)

    def hidden_trees_of_one(
        self, memory: PyTree, lengths: Int[Array, "1"], trees: Sequence[Trees],
        attend: Attention = dense_attention,
    ) -> Float[Array, "N D"]:  # fmt: skip
        """The same at the N nodes, end to end, of trees of several sizes of one input."""
        real = visible(lengths, jax.tree.leaves(memory)[0].shape[-2])
        tokens = jnp.concatenate([each.tokens.reshape(-1) for each in trees])
        x = self._whole(self.embedding[...].at[tokens].get(mode="clip"))
        return self.decoder.trees_of_one(x[None], trees, memory, real, attend)[0]

    def _shifted(self, targets: Int[Array, "B C T"]) -> Float[Array, "B C T D"]:
        """What the decoder reads to make these targets."""
        start = jnp.full((*targets.shape[:2], 1), self.config.decoder_start_id, targets.dtype)
        shifted = jnp.concatenate([start, targets[:, :, :-1]], axis=2)
        return self._whole(self.embedding[...].at[shifted].get(mode="clip"))

    def logits(self, x: Float[Array, "*rows D"]) -> Float32[Array, "*rows V"]:
        """Of every id that may follow."""
        if self.config.tied:
            scaled = x * jnp.asarray(self.config.d_model**-0.5, x.dtype)
            return jnp.einsum(
                "...d,vd->...v",
                scaled,
                self.embedding[...],
                precision=precision(x.dtype),
                preferred_element_type=jnp.float32,
            )
        return multiply(x, self.head, jnp.dtype(jnp.float32))

    def _whole(self, x: Float[Array, "B *rest"]) -> Float[Array, "B *rest"]:
        """x, with its last axis whole on each device."""
        return x if self.mesh is None else self.mesh.keep_rows(x)


def visible(lengths: Int[Array, "B"], length: int) -> Bool[Array, "B {length}"]:
    """True before each row's length."""
    return jnp.arange(length)[None, :] < lengths[:, None]
