"""The programs around decoding: write prompt rows, encode, admit rows to slots, score targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from chorus_server.engine.executor.state import BeamState, BlockState, ModelFunctions, SlotState


def load_rows(table: Array, rows: Array, values: Array) -> Array:
    """`table [R, D]` (donated) with `values [n, D]` at `rows [n]`. A row index of R or more is padding and is
    dropped."""
    return table.at[rows].set(values, mode="drop")


def encode(
    functions: ModelFunctions, params: Any, table: Array, ids: Array, lengths: Array
) -> tuple[Array, Array]:
    """Encoded inputs `[B, L, D]`, and whether each row is finite, `[B]` bool."""
    encoded = functions.encode(params, table, ids, lengths)
    return encoded, jnp.all(jnp.isfinite(encoded), axis=(1, 2))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Admitted:
    """Slots to occupy.

    Attributes:
        targets: `[B]` i32, the slot that takes each row's encoder memory; S or more drops the row.
        fresh: `[S]` bool, whether something is admitted to the slot.
        sources: `[S]` i32, the batch row of each fresh slot.
        slots: new slot state, read where `fresh`.
        members: `[S, W]` i32, as `BeamState.members`.
    """

    targets: Array
    fresh: Array
    sources: Array
    slots: SlotState
    members: Array


def _rows_like(mask: Array, leaf: Array, axis: int) -> Array:
    return mask.reshape((1,) * axis + (-1,) + (1,) * (leaf.ndim - axis - 1))


def _only_finite(encoded: Array, finite: Array) -> Array:
    """Replace failed rows by zeros. A NaN would reach a later occupant of the slot, because 0 x NaN is
    NaN."""
    return jnp.where(finite[:, None, None], encoded, jnp.zeros((), encoded.dtype))


def _write_memory(functions: ModelFunctions, old: Array, new: Array, targets: Array) -> Array:
    """`old` with the rows of `new`, zero-padded to its length, at slots `targets`."""
    axis, position = functions.slot_axis, functions.memory_length_axis
    widths = [(0, 0)] * new.ndim
    widths[position] = (0, old.shape[position] - new.shape[position])
    new = jnp.pad(new, widths).astype(old.dtype)
    return old.at[(slice(None),) * axis + (targets,)].set(new, mode="drop")


def _reset_beams(beams: BeamState, admitted: Admitted) -> BeamState:
    first = admitted.slots.place == 0
    fresh = BeamState(
        members=admitted.members,
        live_scores=jnp.where(first, 0.0, -jnp.inf),
        live_tokens=jnp.zeros_like(beams.live_tokens),
        scores=jnp.full_like(beams.scores, -jnp.inf),
        lengths=jnp.zeros_like(beams.lengths),
        ended=jnp.zeros_like(beams.ended),
        sequences=jnp.zeros_like(beams.sequences),
    )
    reset: BeamState = jax.tree.map(
        lambda new, old: jnp.where(_rows_like(admitted.fresh, new, 0), new, old), fresh, beams
    )
    return reset


def admit(
    functions: ModelFunctions,
    params: Any,
    state: BlockState,
    encoded: Array,
    lengths: Array,
    finite: Array,
    admitted: Admitted,
) -> BlockState:
    """The block (donated) with rows of an encoded batch in fresh slots. Nothing of a former occupant
    remains."""
    # Positions beyond each row's length are zero too: the model promises it.
    memory = functions.encoder_memory(params, _only_finite(encoded, finite), lengths)
    fresh = admitted.fresh
    chosen: SlotState = jax.tree.map(lambda new, old: jnp.where(fresh, new, old), admitted.slots, state.slots)
    usable = finite[admitted.sources]
    return BlockState(
        memory=jax.tree.map(
            lambda old, new: _write_memory(functions, old, new, admitted.targets), state.memory, memory
        ),
        memory_lengths=state.memory_lengths.at[admitted.targets].set(lengths, mode="drop"),
        cache=jax.tree.map(
            lambda leaf: jnp.where(
                _rows_like(fresh, leaf, functions.slot_axis), jnp.zeros((), leaf.dtype), leaf
            ),
            state.cache,
        ),
        slots=replace(chosen, active=jnp.where(fresh, usable, state.slots.active)),
        beams=_reset_beams(state.beams, admitted),
    )


def score(
    functions: ModelFunctions,
    params: Any,
    encoded: Array,
    lengths: Array,
    finite: Array,
    targets: Array,
    target_lengths: Array,
) -> Array:
    """Sums of the targets' log probabilities, `[B, C]` f32; NaN in failed rows."""
    sums = functions.target_log_probabilities(params, encoded, lengths, targets, target_lengths)
    return jnp.where(finite[:, None], sums, jnp.nan)
