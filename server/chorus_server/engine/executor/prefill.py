"""The programs around decoding: write prompt rows, encode, admit rows to slots, score targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from chorus_server.engine.executor.state import BeamState, BlockState, ModelFunctions, SlotState
from chorus_server.engine.target_trees import FEW_TREES
from chorus_server.model.trees import Trees


def load_rows(table: Array, rows: Array, values: Array) -> Array:
    """`table [R, D]` (donated) with `values [n, D]` at `rows [n]`. A row index of R or more is padding and is
    dropped."""
    return table.at[rows].set(values, mode="drop")


def encode(
    functions: ModelFunctions,
    bucket: tuple[int, int],
    params: Any,
    table: Array,
    tokens: Any,
    ids: Array,
    starts: Array,
    lengths: Array,
) -> tuple[Any, Array]:
    """`tokens` (donated) with the encoder memory of rows that lie end to end in `ids [T]`, from place 0 on.

    Args:
        bucket: B and L: rows from B on are not used, and no row is longer than L.
        starts, lengths: as in `EncodedRows`.

    Returns:
        The tokens' keys and values, and whether each row is finite.
    """
    B, L = bucket
    encoded = functions.encode_tokens(params, table, ids, starts[:B], lengths[:B], L)
    broken = ~jnp.isfinite(encoded).all(axis=1)
    place = jnp.arange(ids.shape[0])
    own = (place >= starts[:, None]) & (place < (starts + lengths)[:, None])
    finite = ~(own & broken).any(axis=1)
    new = functions.token_memory(params, encoded)

    def write(old: Array, leaf: Array) -> Array:
        return jax.lax.dynamic_update_slice(old, leaf.astype(old.dtype), (0,) * old.ndim)

    return jax.tree.map(write, tokens, new), finite


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Rows of an encoded batch. They are as many as the ladder's largest bucket has, whatever the bucket.

    Attributes:
        starts: `[B]` i32, where each begins on the token axis.
        lengths: `[B]` i32; 0 for a row that is not used.
        finite: `[B]` bool.
    """

    starts: Array
    lengths: Array
    finite: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Admitted:
    """Slots to occupy.

    Attributes:
        count: i32, how many rows of the batch are admitted.
        rows: `[B]` i32, these rows; the first `count` are read.
        targets: `[B]` i32, the slot that takes each row's encoder memory; S where there is none.
        fresh: `[S]` bool, whether something is admitted to the slot.
        sources: `[S]` i32, the batch row of each fresh slot.
        slots: new slot state, read where `fresh`.
        members: `[S, W]` i32, as `BeamState.members`.
    """

    count: Array
    rows: Array
    targets: Array
    fresh: Array
    sources: Array
    slots: SlotState
    members: Array


def _rows_like(mask: Array, leaf: Array, axis: int) -> Array:
    return mask.reshape((1,) * axis + (-1,) + (1,) * (leaf.ndim - axis - 1))


def _write_memory(
    functions: ModelFunctions, memory: Any, tokens: Any, rows: EncodedRows, admitted: Admitted, apart: bool
) -> Any:
    """The memory with admitted rows in their slots: whole, 0 beyond each row's length. A failed row is all 0,
    because a NaN would reach a later occupant of the slot: 0 x NaN is NaN."""
    axis = functions.slot_axis
    length = jax.tree.leaves(memory)[0].shape[functions.memory_length_axis]
    starts = rows.starts[admitted.rows]
    lengths = jnp.where(rows.finite, rows.lengths, 0)[admitted.rows]
    if apart:  # the slots of a mesh: one scatter, which each device does for its own
        new = functions.row_memory(tokens, starts, lengths, length)
        place = (slice(None),) * axis + (admitted.targets,)
        return jax.tree.map(lambda old, leaf: old.at[place].set(leaf, mode="drop"), memory, new)

    def put(index: Array, memory: Any) -> Any:
        one = functions.row_memory(tokens, starts[index][None], lengths[index][None], length)
        return jax.tree.map(
            lambda old, leaf: jax.lax.dynamic_update_slice_in_dim(old, leaf, admitted.targets[index], axis),
            memory,
            one,
        )

    return jax.lax.fori_loop(0, admitted.count, put, memory)


def _reset_beams(beams: BeamState, admitted: Admitted) -> BeamState:
    first = admitted.slots.place == 0
    fresh = BeamState(
        members=admitted.members,
        live_scores=jnp.where(first, 0.0, -jnp.inf),
        live_tokens=jnp.zeros_like(beams.live_tokens),
        live_log_probs=jnp.zeros_like(beams.live_log_probs),
        live_paths=jnp.zeros_like(beams.live_paths),
        scores=jnp.full_like(beams.scores, -jnp.inf),
        lengths=jnp.zeros_like(beams.lengths),
        ended=jnp.zeros_like(beams.ended),
        sequences=jnp.zeros_like(beams.sequences),
        log_probs=jnp.zeros_like(beams.log_probs),
        paths=jnp.zeros_like(beams.paths),
        top_ids=jnp.zeros_like(beams.top_ids),
        top_log_probs=jnp.zeros_like(beams.top_log_probs),
    )
    reset: BeamState = jax.tree.map(
        lambda new, old: jnp.where(_rows_like(admitted.fresh, new, 0), new, old), fresh, beams
    )
    return reset


def admit(
    functions: ModelFunctions,
    apart: bool,
    state: BlockState,
    tokens: Any,
    rows: EncodedRows,
    admitted: Admitted,
) -> BlockState:
    """The block (donated) with rows of an encoded batch in fresh slots. Nothing of a former occupant
    remains.

    Args:
        tokens: as `encode` leaves them.
        apart: whether the slots are on several devices.
    """
    fresh = admitted.fresh
    chosen: SlotState = jax.tree.map(
        lambda new, old: jnp.where(_rows_like(fresh, new, 0), new, old), admitted.slots, state.slots
    )
    usable = rows.finite[admitted.sources]
    return BlockState(
        memory=_write_memory(functions, state.memory, tokens, rows, admitted, apart),
        memory_lengths=state.memory_lengths.at[admitted.targets].set(
            rows.lengths[admitted.rows], mode="drop"
        ),
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
    length: int,
    params: Any,
    tokens: Any,
    rows: EncodedRows,
    chosen: Array,
    trees: Trees,
) -> Array:
    """Log probabilities of the edges of trees, `[R, E]` f32; NaN in failed rows.

    Args:
        length: no row is longer.
        chosen: `[R]` i32, the row of the batch that each tree follows; B or more for none.
    """

    memory, lengths, finite = _memory_of(functions, length, tokens, rows, chosen)
    found = functions.tree_log_probabilities(params, memory, lengths, trees)
    return jnp.where(finite[:, None], found, jnp.nan)


def score_one(
    functions: ModelFunctions,
    length: int,
    params: Any,
    tokens: Any,
    rows: EncodedRows,
    chosen: Array,
    count: Array,
    trees: tuple[Trees, ...],
) -> tuple[Array, ...]:
    """`score` for several trees of one row, by size, the largest first. All are scored in one pass, unless
    there are only `FEW_TREES` of the largest: these are scored one after another, and no other.

    Args:
        count: i32, how many of the largest there are.
    """
    memory, lengths, finite = _memory_of(functions, length, tokens, rows, chosen)
    empty = [jnp.zeros(each.pieces.shape, jnp.float32) for each in trees]

    def one(place: Array, found: Array) -> Array:
        tree = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, place, 1), trees[0])
        each = functions.tree_log_probabilities(params, memory, lengths, tree)
        return jax.lax.dynamic_update_slice_in_dim(found, each, place, 0)

    def few() -> tuple[Array, ...]:
        return (jax.lax.fori_loop(0, count, one, empty[0]), *empty[1:])

    def together() -> tuple[Array, ...]:
        return functions.log_probabilities_of_one(params, memory, lengths, trees)

    found: tuple[Array, ...] = jax.lax.cond(count <= FEW_TREES, few, together)
    return tuple(jnp.where(finite, each, jnp.nan) for each in found)


def _memory_of(
    functions: ModelFunctions, length: int, tokens: Any, rows: EncodedRows, chosen: Array
) -> tuple[Any, Array, Array]:
    """Encoder memory of the chosen rows, their lengths, and whether they are finite. A row that failed is
    empty."""

    def of(leaf: Array, missing: Any) -> Array:
        return leaf.at[chosen].get(mode="fill", fill_value=missing)

    finite = of(rows.finite, True)
    lengths = jnp.where(finite, of(rows.lengths, 0), 0)
    return functions.row_memory(tokens, of(rows.starts, 0), lengths, length), lengths, finite
