"""The whole T5: one embedding table for text and prompts, encoder, decoder, head."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from server.model.attention import Attention, dense_attention, precision
from server.model.config import T5Config
from server.model.dropout import Dropout
from server.model.layers import multiply, parameter
from server.model.layout import Layout, PyTree
from server.model.mesh import DeviceMesh
from server.model.stacks import Decoder, Encoder


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
        self, prompt_rows: jax.Array, ids: jax.Array, lengths: jax.Array, attend: Attention = dense_attention,
        dropout: Dropout | None = None,
    ) -> jax.Array:  # fmt: skip
        """prompt_rows [R, D], ids [B, L], lengths [B] -> [B, L, D], 0 beyond lengths."""
        real = visible(lengths, ids.shape[1])
        drop = None if dropout is None else dropout.at(0)
        return self.encoder(self.embed(prompt_rows, ids, real), real, attend, drop)

    def embed(self, prompt_rows: jax.Array, ids: jax.Array, real: jax.Array) -> jax.Array:
        """Ids below V are embedding rows, V + r is prompt row r. The result is 0 where not real, whatever
        those rows hold."""
        V = self.config.padded_vocab_size
        text = self.embedding[...].at[jnp.where(ids < V, ids, 0)].get(mode="clip")
        prompt = prompt_rows.astype(text.dtype).at[jnp.where(ids < V, 0, ids - V)].get(mode="clip")
        x = jnp.where((ids < V)[:, :, None], text, prompt)
        return self._whole(jnp.where(real[:, :, None], x, 0))

    def step(
        self, cache: PyTree, memory: PyTree, memory_lengths: jax.Array, tokens: jax.Array, positions:
        jax.Array, memory_index: jax.Array | None,
    ) -> tuple[jax.Array, PyTree]:  # fmt: skip
        """tokens [S], positions [S] -> logits [S, V] f32, and the cache with these tokens added."""
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
        self, encoded: jax.Array, lengths: jax.Array, targets: jax.Array, attend: Attention = dense_attention,
        dropout: Dropout | None = None,
    ) -> jax.Array:  # fmt: skip
        """Teacher forcing: encoded [B, L, D], targets [B, C, T] -> decoder output [B, C, T, D] for each
        target."""
        start = jnp.full((*targets.shape[:2], 1), self.config.decoder_start_id, targets.dtype)
        shifted = jnp.concatenate([start, targets[:, :, :-1]], axis=2)
        x = self._whole(self.embedding[...].at[shifted].get(mode="clip"))
        drop = None if dropout is None else dropout.at(1)
        return self.decoder.targets(x, encoded, visible(lengths, encoded.shape[1]), attend, drop)

    def logits(self, x: jax.Array) -> jax.Array:
        """x [..., D] -> [..., V] f32."""
        if self.config.tied:
            scaled = x * jnp.asarray(self.config.d_model**-0.5, x.dtype)
            return jnp.einsum(
                "...d,vd->...v",
                scaled,
                self.embedding[...],
                precision=precision(x.dtype),
                preferred_element_type=jnp.float32,
            )
        return multiply(x, self.head, jnp.float32)

    def _whole(self, x: jax.Array) -> jax.Array:
        """x [B, ...], with its last axis whole on each device."""
        return x if self.mesh is None else self.mesh.keep_rows(x)


def visible(lengths: jax.Array, length: int) -> jax.Array:
    """lengths [B] -> [B, L] bool, true before each row's length."""
    return jnp.arange(length)[None, :] < lengths[:, None]
