"""From device outputs to step results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from chorus_server.engine.executor.decode import DecodeOutput, Hypotheses
from chorus_server.engine.plans import (
    Beam,
    BeamsDone,
    DecodePlan,
    DecodeResult,
    Likeliest,
    PrefillPlan,
    PrefillResult,
    ScorePlan,
    ScoreResult,
    SlotTokens,
)

Group = tuple[int, ...]


def prefill_result(plan: PrefillPlan, finite: Any) -> PrefillResult:
    healthy = np.asarray(finite)
    return PrefillResult(plan.step, tuple(row for row in range(len(plan.inputs)) if not healthy[row]))


def score_result(plan: ScorePlan, chunks: Sequence[Any]) -> ScoreResult:
    sums = np.concatenate([np.asarray(chunk) for chunk in chunks], axis=1)
    rows = (tuple(float(v) for v in sums[row, : len(targets)]) for row, targets in enumerate(plan.targets))
    return ScoreResult(plan.step, tuple(rows))


def decode_result(plan: DecodePlan, output: DecodeOutput, searches: dict[int, Group]) -> DecodeResult:
    """What each slot did.

    Args:
        searches: leader -> slots of the beam searches that were in the block when the step was dispatched.
            Their slots are reported as `BeamsDone` at the end, never as tokens.
    """
    started, done = np.asarray(output.started), np.asarray(output.done)
    counts, failed = np.asarray(output.counts), np.asarray(output.failed)
    tokens, log_probs = np.asarray(output.tokens), np.asarray(output.log_probs)
    top = np.asarray(output.top)
    told = _Told(output.top_ids, output.top_log_probs) if top.any() else None
    in_search = {slot for group in searches.values() for slot in group}
    slots = tuple(
        SlotTokens(
            slot=slot,
            tokens=tuple(tokens[slot, : counts[slot]].tolist()),
            log_probabilities=tuple(log_probs[slot, : counts[slot]].tolist()),
            done=bool(done[slot]),
            failed=bool(failed[slot]),
            top=told.of(int(top[slot]), slot, range(counts[slot])) if told and top[slot] else (),
        )
        for slot in np.flatnonzero(started).tolist()
        if slot not in in_search
    )
    over = [leader for leader in searches if done[leader]]
    return DecodeResult(plan.step, plan.block, slots, _beams(output, over, failed, top) if over else ())


class _Told:
    """The likeliest tokens that the device told of, in host arrays `[S, places, K]`."""

    def __init__(self, ids: Any, log_probs: Any) -> None:
        self._ids, self._log_probs = np.asarray(ids), np.asarray(log_probs)

    def of(self, most: int, slots: Any, places: Iterable[int]) -> tuple[Likeliest, ...]:
        """The `most` likeliest in each of these places; `slots` is one, or one for each place."""
        where = (slots, list(places), slice(most))
        both = zip(self._ids[where].tolist(), self._log_probs[where].tolist(), strict=True)
        return tuple(tuple(zip(ids, values, strict=True)) for ids, values in both)


def _beams(output: DecodeOutput, leaders: Sequence[int], failed: Any, top: Any) -> tuple[BeamsDone, ...]:
    if output.hypotheses is None:
        return ()
    found = jax.tree.map(np.asarray, output.hypotheses)
    return tuple(
        BeamsDone(leader, (), failed=True)
        if failed[leader]
        else BeamsDone(leader, _hypotheses(found, leader, int(top[leader])))
        for leader in sorted(leaders)
    )


def _hypotheses(found: Hypotheses, leader: int, top: int) -> tuple[Beam, ...]:
    """A finished set without its empty places."""
    told = _Told(found.top_ids, found.top_log_probs) if top else None
    beams = []
    for place in np.flatnonzero(np.isfinite(found.scores[leader])).tolist():
        length = int(found.lengths[leader, place])
        at = (leader, place, slice(length))
        beams.append(
            Beam(
                tuple(found.sequences[at].tolist()),
                float(found.scores[leader, place]),
                bool(found.ended[leader, place]),
                tuple(found.log_probs[at].tolist()),
                told.of(top, found.paths[at], range(length)) if told else (),
            )
        )
    return tuple(beams)
