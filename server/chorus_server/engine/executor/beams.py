"""Beam search on the device: many searches of different widths side by side in one block.

The rules are those of T5X `decoding.beam_search`; the penalty is from Wu et al. 2016, section 7. Each step
takes the 2 x width best continuations of a search. Those that end in `</s>` compete for the finished set by
log probability / penalty(tokens, including `</s>`); the best of the others live on. A search is over at its
token limit, or when its finished set is full and no live beam could still beat the worst in it.

The rules are T5X's, or with `length_penalty_rule` huggingface those of its beam search with
`early_stopping=False`, whose estimate of what a live beam could reach is lower. Without a penalty (alpha = 0)
they are Hugging Face's too, because the two estimates are then the same:

=================================== ============================= =======================================
                                     Hugging Face, or alpha = 0    T5X
=================================== ============================= =======================================
`penalty(n)`                         `n ** alpha`                  `((5 + n) / 6) ** alpha`
a live beam can reach its score at   its length now                the token limit
`</s>` counts when it ranks among    the `width` best              all 2 x `width`
unfinished beams at the token limit  compete with finished ones    come after every finished one
=================================== ============================= =======================================

Only self-attention state follows a beam to another slot. Encoder memory belongs to the group and stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array, lax

from chorus_server.engine.executor.choosing import Normaliser
from chorus_server.engine.executor.state import MAX_BEAMS, BeamState, SlotState

_CANDIDATES = 2 * MAX_BEAMS
_NOTHING = -jnp.inf


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class BeamStep:
    """What one step decided for every slot.

    Attributes:
        beams: the new state.
        tokens: `[S]` i32, the token that each slot's new beam added.
        parents: `[S]` i32, the slot whose self-attention state it continues.
        over: `[S]` bool, true in every row of a group whose search ended.
    """

    beams: BeamState
    tokens: Array
    parents: Array
    over: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class _Candidates:
    """The best continuations of each leader's search, best first; all are `[S, C]`, `sequences` is `[S, C,
    T]`."""

    values: Array
    tokens: Array
    parents: Array
    ended: Array
    lengths: Array
    sequences: Array
    log_probs: Array
    paths: Array


def penalty(tokens: Array, slots: SlotState) -> Array:
    """Each slot's length penalty of `tokens [S, ...]` generated tokens."""
    alpha, hf = (
        each.reshape((-1,) + (1,) * (tokens.ndim - 1)) for each in (slots.alpha, slots.as_huggingface)
    )
    length = tokens.astype(jnp.float32)
    base = jnp.where(hf, length, (5.0 + length) / 6.0)
    return base**alpha


def _pick(values: Array, index: Array) -> Array:
    """`values [S, n, ...]` at `index [S, m]` along axis 1."""
    shaped = index.reshape(index.shape + (1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, shaped, axis=1)


def _candidates(
    log_probs: Array, logits: Array, normal: Normaliser, slots: SlotState, beams: BeamState, eos_id: int
) -> _Candidates:
    """The top 2 x width continuations over the beams of each search. Ties go to the earlier beam, then to the
    smaller id."""
    S, V = log_probs.shape
    T = beams.live_tokens.shape[1]
    best, ids = lax.top_k(log_probs, min(_CANDIDATES, V))
    K = best.shape[1]
    born = lax.broadcasted_iota(jnp.int32, beams.members.shape, 1) < slots.width[:, None]
    values = best[beams.members] + beams.live_scores[beams.members][:, :, None]
    values = jnp.where(born[:, :, None], values, _NOTHING).reshape(S, MAX_BEAMS * K)
    top, index = lax.top_k(values, min(_CANDIDATES, MAX_BEAMS * K))
    rank = lax.broadcasted_iota(jnp.int32, top.shape, 1)
    top = jnp.where(rank < 2 * slots.width[:, None], top, _NOTHING)
    tokens = jnp.take_along_axis(ids[beams.members].reshape(S, -1), index, axis=1)
    parents = jnp.take_along_axis(beams.members, index // K, axis=1)
    ended = tokens == eos_id
    place = lax.broadcasted_iota(jnp.int32, (1, 1, T), 2)
    here = (place == slots.positions[:, None, None]) & ~ended[:, :, None]
    own = logits[parents, tokens] - normal[0][parents, 0] - normal[1][parents, 0]
    lengths = slots.positions[:, None] + (~ended).astype(jnp.int32)
    return _Candidates(
        top,
        tokens,
        parents,
        ended,
        lengths,
        sequences=jnp.where(here, tokens[:, :, None], beams.live_tokens[parents]),
        log_probs=jnp.where(here, own[:, :, None], beams.live_log_probs[parents]),
        paths=jnp.where(here, parents[:, :, None], beams.live_paths[parents]),
    )


def _merge_finished(found: _Candidates, counts: Array, slots: SlotState, beams: BeamState) -> BeamState:
    """The finished sets after the candidates marked in `counts [S, C]` have competed for a place."""
    made = (slots.positions + 1)[:, None]
    scores = jnp.where(counts, found.values / penalty(made, slots), _NOTHING)
    top, index = lax.top_k(jnp.concatenate([beams.scores, scores], axis=1), MAX_BEAMS)
    place = lax.broadcasted_iota(jnp.int32, top.shape, 1)
    return replace(
        beams,
        scores=jnp.where(place < slots.width[:, None], top, _NOTHING),
        lengths=_pick(jnp.concatenate([beams.lengths, found.lengths], axis=1), index),
        ended=_pick(jnp.concatenate([beams.ended, found.ended], axis=1), index),
        sequences=_pick(jnp.concatenate([beams.sequences, found.sequences], axis=1), index),
        log_probs=_pick(jnp.concatenate([beams.log_probs, found.log_probs], axis=1), index),
        paths=_pick(jnp.concatenate([beams.paths, found.paths], axis=1), index),
    )


def _fill_with_live(
    beams: BeamState, live: Array, found: _Candidates, slots: SlotState, wanted: Array
) -> BeamState:
    """Put live beams (`live [S, W]`, candidate places) after the finished ones, in rows where `wanted [S]` is
    true."""
    place = lax.broadcasted_iota(jnp.int32, live.shape, 1)
    finished = jnp.sum(beams.scores > _NOTHING, axis=1, dtype=jnp.int32)[:, None]
    from_live = wanted[:, None] & (place >= finished) & (place < slots.width[:, None])
    index = jnp.take_along_axis(live, jnp.clip(place - finished, 0, MAX_BEAMS - 1), axis=1)
    scores = _pick(found.values, index) / penalty(_pick(found.lengths, index), slots)
    scores = jnp.where(_pick(found.ended, index), _NOTHING, scores)
    return replace(
        beams,
        scores=jnp.where(from_live, scores, beams.scores),
        lengths=jnp.where(from_live, _pick(found.lengths, index), beams.lengths),
        ended=beams.ended & ~from_live,
        sequences=jnp.where(from_live[:, :, None], _pick(found.sequences, index), beams.sequences),
        log_probs=jnp.where(from_live[:, :, None], _pick(found.log_probs, index), beams.log_probs),
        paths=jnp.where(from_live[:, :, None], _pick(found.paths, index), beams.paths),
    )


def _is_over(beams: BeamState, best_live: Array, slots: SlotState) -> Array:
    """`[S]` bool: the finished set is full, and no live beam can beat the worst in it."""
    place = lax.broadcasted_iota(jnp.int32, beams.scores.shape, 1)
    inside = place < slots.width[:, None]
    worst = jnp.min(jnp.where(inside, beams.scores, jnp.inf), axis=1)
    longest_length = slots.settings["max_new_tokens"] + 1  # T5X counts the start token here
    reach = best_live / penalty(jnp.where(slots.as_huggingface, slots.positions + 1, longest_length), slots)
    beaten = jnp.where(slots.as_huggingface, worst >= reach, worst > reach)
    return (worst > _NOTHING) & beaten


def advance(
    log_probs: Array,
    logits: Array,
    normal: Normaliser,
    slots: SlotState,
    beams: BeamState,
    running: Array,
    eos_id: int,
) -> BeamStep:
    """Take one step of every search.

    Args:
        log_probs: `[S, V]` f32 for each slot's next token, as the settings change them; minus infinity where
            a token is forbidden.
        logits, normal: `[S, V]` f32 as the model gives them, and what makes log probabilities of them.
        running: `[S]` bool, whether the slot belongs to a search under way; other slots keep their state.
    """
    found = _candidates(log_probs, logits, normal, slots, beams, eos_id)
    plain = slots.as_huggingface | (slots.alpha == 0.0)
    at_limit = slots.positions + 1 >= slots.settings["max_new_tokens"]
    rank = lax.broadcasted_iota(jnp.int32, found.values.shape, 1)
    width = slots.width[:, None]
    may_finish = found.ended | (plain & at_limit)[:, None]
    counts = may_finish & (rank < jnp.where(plain[:, None], width, 2 * width))
    finished = _merge_finished(found, counts & (found.values > _NOTHING), slots, beams)
    live_values, live = lax.top_k(jnp.where(found.ended, _NOTHING, found.values), MAX_BEAMS)
    over = at_limit | _is_over(finished, live_values[:, 0], slots)
    finished = _fill_with_live(finished, live, found, slots, at_limit & ~plain)

    leader, own = slots.leader, slots.place
    index = live[leader, own]
    moved = replace(
        finished,
        live_scores=live_values[leader, own],
        live_tokens=found.sequences[leader, index],
        live_log_probs=found.log_probs[leader, index],
        live_paths=found.paths[leader, index],
    )
    kept = jax.tree.map(
        lambda new, old: jnp.where(running.reshape((-1,) + (1,) * (new.ndim - 1)), new, old), moved, beams
    )
    here = jnp.arange(running.shape[0], dtype=jnp.int32)
    return BeamStep(
        beams=kept,
        tokens=found.tokens[leader, index],
        parents=jnp.where(running, found.parents[leader, index], here),
        over=over[leader] & running,
    )
