"""From device outputs to step results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chorus_server.engine.executor.decode import DecodeOutput
from chorus_server.engine.plans import (
    Beam,
    BeamsDone,
    DecodePlan,
    DecodeResult,
    PrefillPlan,
    PrefillResult,
    ScorePlan,
    ScoreResult,
    SlotTokens,
)
from chorus_server.engine.target_trees import TargetTree

Group = tuple[int, ...]


def prefill_result(plan: PrefillPlan, finite: Any) -> PrefillResult:
    healthy = np.asarray(finite)
    return PrefillResult(plan.step, tuple(row for row in range(len(plan.inputs)) if not healthy[row]))


Scored = tuple[Sequence[tuple[int, TargetTree]], Any]
"""(row of the plan, tree) of a dispatch, and the log probabilities of their edges."""


def score_result(plan: ScorePlan, dispatches: Sequence[Scored]) -> ScoreResult:
    """Each target's sum, in the plan's order."""
    sums = [np.zeros(len(targets), np.float32) for targets in plan.targets]
    for part, found in dispatches:
        each = np.asarray(found)
        for place, (row, tree) in enumerate(part):
            sums[row][tree.targets] = tree.sums(each[place])
    return ScoreResult(plan.step, tuple(tuple(row.tolist()) for row in sums))


def decode_result(plan: DecodePlan, output: DecodeOutput, searches: dict[int, Group]) -> DecodeResult:
    """What each slot did.

    Args:
        searches: leader -> slots of the beam searches that were in the block when the step was dispatched.
            Their slots are reported as `BeamsDone` at the end, never as tokens.
    """
    started, done = np.asarray(output.started), np.asarray(output.done)
    counts, failed = np.asarray(output.counts), np.asarray(output.failed)
    tokens, log_probs = np.asarray(output.tokens), np.asarray(output.log_probs)
    in_search = {slot for group in searches.values() for slot in group}
    slots = tuple(
        SlotTokens(
            slot=slot,
            tokens=tuple(tokens[slot, : counts[slot]].tolist()),
            log_probabilities=tuple(log_probs[slot, : counts[slot]].tolist()),
            done=bool(done[slot]),
            failed=bool(failed[slot]),
        )
        for slot in np.flatnonzero(started).tolist()
        if slot not in in_search
    )
    over = [leader for leader in searches if done[leader]]
    return DecodeResult(plan.step, plan.block, slots, _beams(output, over, failed) if over else ())


def _beams(output: DecodeOutput, leaders: Sequence[int], failed: Any) -> tuple[BeamsDone, ...]:
    if output.hypotheses is None:
        return ()
    scores, lengths, ended, sequences = (np.asarray(array) for array in output.hypotheses)
    return tuple(
        BeamsDone(leader, (), failed=True)
        if failed[leader]
        else BeamsDone(leader, _hypotheses(scores[leader], lengths[leader], ended[leader], sequences[leader]))
        for leader in sorted(leaders)
    )


def _hypotheses(scores: Any, lengths: Any, ended: Any, sequences: Any) -> tuple[Beam, ...]:
    """A finished set without its empty places."""
    return tuple(
        Beam(tuple(sequences[place, : lengths[place]].tolist()), float(scores[place]), bool(ended[place]))
        for place in range(len(scores))
        if np.isfinite(scores[place])
    )
