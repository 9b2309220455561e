"""The training objective: cross-entropy of the target tokens, plus the z-loss of the released code.

A batch is laid out prompt by prompt: M rows of prompt 0, M of prompt 1, and so on, end to end on one axis of
tokens. The values of prompt n
begin at row n * P of the table in which `functions.encode` looks ids up. The ids of a batch row name rows of
its own prompt only, so its gradient reaches no other prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from chorus_server.model.dropout import Dropout
from chorus_server.model.functions import Functions
from chorus_server.model.layout import PyTree
from chorus_server.tuning.training.optimiser import StepSettings, update


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TuningBatch:
    """One micro-batch: B = N * M rows on an axis of L tokens. Where groups of devices share it, each has such
    a batch of its own, and every array here holds theirs one after another.

    Attributes:
        ids: of each row prompt rows, text and `</s>`.
        starts: where each row begins on its group's axis.
        lengths: 0 for a row that is not used, whose target has length 0 too.
        keys: each row's own key for dropout.
    """

    ids: Int32[Any, "L"]
    starts: Int32[Any, "B"]
    lengths: Int32[Any, "B"]
    targets: Int32[Any, "B T"]
    target_lengths: Int32[Any, "B"]
    keys: UInt32[Any, "B 2"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TuningSums:
    """Sums over the micro-batches of a step.

    Attributes:
        gradients: [N, P, D] f32, of each prompt's loss, summed over target tokens.
        losses: [N] f32, summed cross-entropy without the z-loss.
        tokens: [N] f32, number of target tokens.
    """

    # JAX also makes one that holds shardings in place of arrays.
    gradients: Any
    losses: Any
    tokens: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossConfig:
    """Dropout rate and z-loss weight."""

    dropout_rate: Float32[Any, ""]
    z_loss: Float32[Any, ""]


def accumulate(
    functions: Functions,
    longest: int,
    dropping: bool,
    params: PyTree,
    prompts: Float32[Array, "N P D"],
    sums: TuningSums,
    batch: TuningBatch,
    loss: LossConfig,
) -> TuningSums:
    """Add one micro-batch to the sums. Gradients are taken for prompts alone.

    Args:
        longest: static; no row is longer.
        dropping: static; if False, the program has no dropout in it.
    """
    own, whole = partial(_sums, functions, longest, dropping), (params, prompts, loss)
    if functions.mesh is None:
        found = own(*whole, batch)
    else:
        found = jax.tree.map(_over_groups, functions.mesh.by_group(own, whole, batch))
    added: TuningSums = jax.tree.map(jnp.add, sums, found)
    return added


def _over_groups(each: Float32[Array, "groups *rest"]) -> Float32[Array, "*rest"]:
    return each.sum(axis=0)


def _sums(
    functions: Functions,
    longest: int,
    dropping: bool,
    params: PyTree,
    prompts: Float32[Array, "N P D"],
    loss: LossConfig,
    batch: TuningBatch,
) -> TuningSums:
    """Of one group's rows."""
    objective = partial(_objective, functions, longest, dropping, params)
    gradients, losses = jax.grad(objective, has_aux=True)(prompts, batch, loss)
    N = prompts.shape[0]
    tokens = batch.target_lengths.reshape(N, -1).sum(axis=1).astype(jnp.float32)
    return TuningSums(gradients, losses.reshape(N, -1).sum(axis=1), tokens)


def apply(
    prompts: Float32[Array, "N P D"],
    second_moment: Float32[Array, "N P D"],
    sums: TuningSums,
    settings: StepSettings,
    active: Bool[Array, "N"],
) -> tuple[Float32[Array, "N P D"], Float32[Array, "N P D"], Float32[Array, "N"], Bool[Array, "N"]]:
    """One optimiser step from the sums of a whole batch.

    Args:
        active: the other prompts do not change.

    Returns:
        prompts, second_moment, mean loss per token, and finite. A prompt that is not finite has a loss,
        gradient or new value that is no finite number, and does not change.
    """
    tokens = jnp.maximum(sums.tokens, 1)
    gradients = sums.gradients / jnp.where(settings.sums > 0, 1, tokens)[:, None, None]
    losses = sums.losses / tokens
    new, moment = update(prompts, second_moment, gradients, settings)
    finite = (
        jnp.isfinite(losses) & jnp.isfinite(gradients).all(axis=(1, 2)) & jnp.isfinite(new).all(axis=(1, 2))
    )
    moves = (finite & active)[:, None, None]
    return jnp.where(moves, new, prompts), jnp.where(moves, moment, second_moment), losses, finite


def _objective(
    functions: Functions,
    longest: int,
    dropping: bool,
    params: PyTree,
    prompts: Float32[Array, "N P D"],
    batch: TuningBatch,
    loss: LossConfig,
) -> tuple[Float32[Array, ""], Float32[Array, "B"]]:
    """Sum over all target tokens, and each row's summed cross-entropy."""
    dropout = None
    if dropping:
        keys = jax.random.wrap_key_data(batch.keys, impl="threefry2x32")
        dropout = Dropout(keys, loss.dropout_rate)
    table = prompts.reshape(-1, prompts.shape[-1])
    rows = batch.starts, batch.lengths, longest
    encoded = functions.encode_tokens(params, table, batch.ids, *rows, dropout)
    targets, lengths = batch.targets[:, None, :], batch.target_lengths[:, None]
    logits = functions.decode_token_targets(params, encoded, *rows, targets, lengths, dropout)[:, 0]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, batch.targets[:, :, None], axis=-1, mode="clip")[:, :, 0]
    real = jnp.arange(batch.targets.shape[1])[None, :] < batch.target_lengths[:, None]
    entropy = jnp.where(real, normaliser - chosen, 0)
    penalty = jnp.where(real, loss.z_loss * normaliser * normaliser, 0)
    return entropy.sum() + penalty.sum(), entropy.sum(axis=1)
