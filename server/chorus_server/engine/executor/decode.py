"""The two decode programs: one device loop runs up to n steps of a block, and ends early when no slot is
active."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from chorus_server.engine.executor import beams as beam_search
from chorus_server.engine.executor.choosing import (
    Normaliser,
    TokenRules,
    changed_and_allowed,
    choose,
    likeliest,
    log_probabilities,
    normaliser,
)
from chorus_server.engine.executor.state import (
    MAX_TOP_LOGPROBS,
    BeamState,
    BlockState,
    ModelFunctions,
    SlotState,
)
from chorus_server.engine.plans import BlockMode


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Fields of `BeamState`, for the host to read once a search is over."""

    scores: Array
    lengths: Array
    ended: Array
    sequences: Array
    log_probs: Array
    paths: Array
    top_ids: Array
    top_log_probs: Array

    @staticmethod
    def of(beams: BeamState) -> Hypotheses:
        return Hypotheses(**{each.name: getattr(beams, each.name) for each in fields(Hypotheses)})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class DecodeOutput:
    """What a dispatch produced, in small arrays of its own, so that the donated state can move on.

    Attributes:
        tokens, log_probs: `[S, n]`; only the first `counts` of each row are valid.
        top_ids, top_log_probs: `[S, n, K]` i32 and f32, the likeliest at each of those places; zeros if no
            slot asked for them.
        top: `[S]` i32, how many of the K the slot asked for.
        counts: `[S]` i32.
        started: `[S]` bool, the slot was active when the dispatch began.
        done: `[S]` bool, the slot was active and no longer is.
        failed: `[S]` bool, the slot's logits (or those of a beam of its group) were not finite.
        steps: i32, how many decode steps ran.
        hypotheses: finished sets of the grouped program; None in the plain one.
    """

    tokens: Array
    log_probs: Array
    top_ids: Array
    top_log_probs: Array
    top: Array
    counts: Array
    started: Array
    done: Array
    failed: Array
    steps: Array
    hypotheses: Hypotheses | None


def output_struct(S: int, width: int, beams: BeamState, mode: BlockMode) -> DecodeOutput:
    """Shapes of what a dispatch produces; `beams` are shapes too."""

    def struct(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]

    return DecodeOutput(
        tokens=struct(jnp.int32, S, width),
        log_probs=struct(jnp.float32, S, width),
        top_ids=struct(jnp.int32, S, width, MAX_TOP_LOGPROBS),
        top_log_probs=struct(jnp.float32, S, width, MAX_TOP_LOGPROBS),
        top=struct(jnp.int32, S),
        counts=struct(jnp.int32, S),
        started=struct(jnp.bool_, S),
        done=struct(jnp.bool_, S),
        failed=struct(jnp.bool_, S),
        steps=struct(jnp.int32),
        hypotheses=Hypotheses.of(beams) if mode == "grouped" else None,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class _Loop:
    """What the device loop carries from step to step."""

    step: Array
    cache: Any
    slots: SlotState
    beams: BeamState
    tokens: Array
    log_probs: Array
    top_ids: Array
    top_log_probs: Array
    counts: Array
    failed: Array


def _reorder(cache: Any, parents: Array, axis: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.take(leaf, parents, axis=axis, mode="clip"), cache)


def _at_place(history: Array, new: Array, place: Array, rows: Array) -> Array:
    """`history [S, T, ...]` with `new [S, ...]` at each row's own place, in the rows marked."""
    T = history.shape[1]
    here = (lax.broadcasted_iota(jnp.int32, history.shape[:2], 1) == place[:, None]) & rows[:, None]
    return jnp.where(here.reshape((-1, T) + (1,) * (history.ndim - 2)), new[:, None], history)


def _beam_step(
    functions: ModelFunctions,
    rules: TokenRules,
    loop: _Loop,
    logits: Array,
    normal: Normaliser,
    healthy: Array,
    cache: Any,
) -> tuple[Any, BeamState, Array, Array]:
    """(cache, beams, tokens, over) after one step of the searches under way. A block without any skips the
    work."""
    slots, beams = loop.slots, loop.beams
    running = slots.active & (slots.width > 1) & healthy

    def search(cache: Any) -> tuple[Any, BeamState, Array, Array]:
        log_probs = changed_and_allowed(
            log_probabilities(logits, normal),
            rules,
            slots.settings,
            slots.positions,
            running,
            beams.live_tokens,
        )
        step = beam_search.advance(log_probs, logits, normal, slots, beams, running, rules.eos_id)
        return _reorder(cache, step.parents, functions.slot_axis), step.beams, step.tokens, step.over

    def skip(cache: Any) -> tuple[Any, BeamState, Array, Array]:
        return cache, beams, slots.tokens, jnp.zeros_like(slots.active)

    result: tuple[Any, BeamState, Array, Array] = lax.cond(jnp.any(running), search, skip, cache)
    return result


def _one_step(
    functions: ModelFunctions,
    rules: TokenRules,
    mode: BlockMode,
    params: Any,
    memory: Any,
    memory_lengths: Array,
    loop: _Loop,
) -> _Loop:
    slots = loop.slots
    limit = slots.settings["max_new_tokens"]
    logits, cache = functions.decode_step(
        params,
        loop.cache,
        memory,
        memory_lengths,
        slots.tokens,
        jnp.minimum(slots.positions, limit - 1),
        slots.leader if mode == "grouped" else None,
    )
    finite = jnp.sum(logits * 0, axis=-1) == 0  # a sum of zeros, but for what is not finite
    beams, made = loop.beams, slots.positions
    if mode == "grouped":
        # A search fails if any of its beams fails; independent samples fail one by one.
        finite = jnp.where(slots.width > 1, jnp.all(finite[beams.members], axis=1)[slots.leader], finite)
    working = slots.active & finite
    alone = slots.active & (slots.width == 1)
    chosen = choose(logits, rules, slots.settings, slots.place, made, alone, beams.live_tokens)
    normal = normaliser(logits)
    picked = log_probabilities(jnp.take_along_axis(logits, chosen[:, None], axis=1), normal)[:, 0]
    top = likeliest(logits, normal, slots.settings, working)
    over = chosen == rules.eos_id
    if mode == "grouped":
        is_beam = slots.width > 1
        cache, beams, beam_tokens, beam_over = _beam_step(
            functions, rules, loop, logits, normal, finite, cache
        )
        chosen = jnp.where(is_beam, beam_tokens, chosen)
        over = jnp.where(is_beam, beam_over, over)
        beams = replace(
            beams,
            top_ids=_at_place(beams.top_ids, top[0], made, working & is_beam),
            top_log_probs=_at_place(beams.top_log_probs, top[1], made, working & is_beam),
        )
        working_alone = working & ~is_beam
    else:
        working_alone = working
    beams = replace(beams, live_tokens=_at_place(beams.live_tokens, chosen, made, working_alone))
    positions = made + working.astype(jnp.int32)
    over = over | (positions >= limit) | ~finite
    at, top_at = (jnp.int32(0), loop.step), (jnp.int32(0), loop.step, jnp.int32(0))
    return _Loop(
        step=loop.step + 1,
        cache=cache,
        slots=replace(
            slots,
            active=slots.active & ~over,
            tokens=jnp.where(working, chosen, slots.tokens),
            positions=positions,
        ),
        beams=beams,
        tokens=lax.dynamic_update_slice(loop.tokens, jnp.where(working, chosen, 0)[:, None], at),
        log_probs=lax.dynamic_update_slice(loop.log_probs, jnp.where(working, picked, 0.0)[:, None], at),
        top_ids=lax.dynamic_update_slice(loop.top_ids, top[0][:, None], top_at),
        top_log_probs=lax.dynamic_update_slice(loop.top_log_probs, top[1][:, None], top_at),
        counts=loop.counts + working.astype(jnp.int32),
        failed=loop.failed | (slots.active & ~finite),
    )


def decode(
    functions: ModelFunctions,
    rules: TokenRules,
    mode: BlockMode,
    width: int,
    params: Any,
    state: BlockState,
    release: Array,
    steps: Array,
) -> tuple[BlockState, DecodeOutput]:
    """Run at most `steps` decode steps of a block.

    Args:
        functions, rules, mode, width: fixed at compile time; `width` is the number of columns of the outputs.
        state: the block, donated.
        release: `[S]` bool, slots to stop first. Releasing a leader stops its whole group.
        steps: i32 scalar, at most `width`.
    """
    slots = state.slots
    started = slots.active & ~release & ~release[slots.leader]
    S = started.shape[0]
    first = _Loop(
        step=jnp.int32(0),
        cache=state.cache,
        slots=replace(slots, active=started),
        beams=state.beams,
        tokens=jnp.zeros((S, width), jnp.int32),
        log_probs=jnp.zeros((S, width), jnp.float32),
        top_ids=jnp.zeros((S, width, MAX_TOP_LOGPROBS), jnp.int32),
        top_log_probs=jnp.zeros((S, width, MAX_TOP_LOGPROBS), jnp.float32),
        counts=jnp.zeros((S,), jnp.int32),
        failed=jnp.zeros((S,), jnp.bool_),
    )

    def more(loop: _Loop) -> Array:
        return (loop.step < steps) & jnp.any(loop.slots.active)

    def body(loop: _Loop) -> _Loop:
        return _one_step(functions, rules, mode, params, state.memory, state.memory_lengths, loop)

    last = lax.while_loop(more, body, first)
    output = DecodeOutput(
        tokens=last.tokens,
        log_probs=last.log_probs,
        top_ids=last.top_ids,
        top_log_probs=last.top_log_probs,
        top=slots.settings["top_logprobs"],
        counts=last.counts,
        started=started,
        done=started & ~last.slots.active,
        failed=last.failed,
        steps=last.step,
        hypotheses=Hypotheses.of(last.beams) if mode == "grouped" else None,
    )
    return replace(state, cache=last.cache, slots=last.slots, beams=last.beams), output
