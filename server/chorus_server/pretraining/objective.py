"""The loss: cross-entropy of the target tokens plus a z-loss. Pure functions.

Weights are canonical tensors in f32. The model computes in its own dtype from casts of them, so that the
gradients of a step add up in f32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, Integer

from chorus_server.model.attention import Attention
from chorus_server.model.functions import Functions
from chorus_server.model.network import T5
from chorus_server.model.t5 import arranged
from chorus_server.pretraining.attention import decoder_segments, within_segments

NamedTensors = Mapping[str, Float32[Array, "..."]]
"""Weights by canonical name."""
Scalar = Float32[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PretrainingBatch:
    """One micro-batch; see `data.rows.Rows`. Ids are as stored (u16); the device widens them.

    Attributes:
        inputs: [B, L].
        targets: [B, T].
        input_segments, target_segments: [B, L] and [B, T] u8; None if each row is one whole example.
    """

    inputs: Any
    targets: Any
    input_segments: Any = None
    target_segments: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PretrainingSums:
    """Sums over the micro-batches of a step.

    Attributes:
        gradients: gradients of the summed loss, by canonical name, f32.
        loss: summed cross-entropy, without the z-loss.
        hits: number of target tokens that were the likeliest.
        tokens: number of target tokens.
    """

    gradients: Any
    loss: Any
    hits: Any
    tokens: Any


def accumulate_gradients(
    functions: Functions,
    attend: Attention,
    z_loss: float,
    tensors: NamedTensors,
    sums: PretrainingSums,
    batch: PretrainingBatch,
) -> PretrainingSums:
    """Add one micro-batch to the sums."""

    def objective(tensors: NamedTensors) -> tuple[Scalar, tuple[Scalar, Scalar, Scalar]]:
        loss, penalty, hits, tokens = measure_batch(functions, attend, tensors, batch)
        return loss + z_loss * penalty, (loss, hits, tokens)

    gradients, (loss, hits, tokens) = jax.grad(objective, has_aux=True)(tensors)
    return PretrainingSums(
        jax.tree.map(jnp.add, sums.gradients, gradients),
        sums.loss + loss, sums.hits + hits, sums.tokens + tokens,
    )  # fmt: skip


def measure_batch(
    functions: Functions, attend: Attention, tensors: NamedTensors, batch: PretrainingBatch
) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """Sums over a batch's target tokens: cross-entropy, squared normaliser, hits, tokens."""
    config = functions.config
    cast = {name: tensor.astype(functions.dtype) for name, tensor in tensors.items()}
    module: T5 = nnx.merge(functions.graph, arranged(config, functions.layout, cast))
    inputs, targets = batch.inputs.astype(jnp.int32), batch.targets.astype(jnp.int32)
    B, L = inputs.shape
    no_prompts = jnp.zeros((1, config.d_model), functions.dtype)
    if batch.input_segments is None:
        lengths, said, real = jnp.full((B,), L, jnp.int32), targets, jnp.ones(targets.shape, bool)
        encoder = decoder = attend
    else:
        lengths = (batch.input_segments > 0).sum(axis=1).astype(jnp.int32)
        said, real = (
            _restarted(config.decoder_start_id, targets, batch.target_segments),
            batch.target_segments > 0,
        )
        encoder = within_segments(attend, batch.input_segments)
        decoder = decoder_segments(attend, batch.input_segments, batch.target_segments)
    encoded = module.encode(no_prompts, inputs, lengths, encoder)
    logits = module.logits(module.hidden_targets(encoded, lengths, said[:, None], decoder)[:, 0])
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, targets[:, :, None], axis=-1, mode="clip")[:, :, 0]
    right = logits.argmax(axis=-1) == targets
    return (
        jnp.where(real, normaliser - chosen, 0).sum(),
        jnp.where(real, normaliser * normaliser, 0).sum(),
        (real & right).sum().astype(jnp.float32),
        real.sum().astype(jnp.float32),
    )


def _restarted(
    start_id: int, targets: Integer[Array, "B T"], segments: Integer[Array, "B T"]
) -> Integer[Array, "B T"]:
    """Targets in the form that a decoder reads. The model shifts them right by one, so the last id before
    each new segment becomes the start id, as if the segment stood alone."""
    last = segments != jnp.pad(segments, ((0, 0), (0, 1)))[:, 1:]
    return jnp.where(last, start_id, targets)
