"""The trials of a search while it runs and when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from chorus.cli.job_view import JobView
from chorus.types import Job

MOST_TRIALS = 100
"""Of a table."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe as far as it is known.

    Attributes:
        knobs: in which it differs from the job's.
        steps: up to which it was measured.
        metric: of its seeds so far, `mean`, `deviation` and `count`; None before the first.
        test: the same on the test split.
        ended: `goes on`, `left behind`, or empty.
    """

    number: int
    knobs: Mapping[str, Any]
    steps: int
    metric: Mapping[str, Any] | None
    test: Mapping[str, Any] | None
    ended: str


def trials_of(job: Job, view: JobView) -> list[Trial]:
    """The trials of a search, the best first; none of another job."""
    sweep, seeds = job.spec.get("sweep") or {}, int(job.spec.get("seeds") or 1)
    if not sweep and seeds == 1:
        return []
    if told := job.result.get("trials"):
        return [_told(each) for each in told]
    recipes: Sequence[Mapping[str, Any]] = sweep.get("trials") or [{}]
    found = [_told(known) if (known := view.trials.get(number)) else _seen(number, recipe, seeds, view)
             for number, recipe in enumerate(recipes)]  # fmt: skip
    return sorted(found, key=lambda each: (each.ended == "left behind", -_mean(each), each.number))


def _told(trial: Mapping[str, Any]) -> Trial:
    kept = trial.get("kept")
    behind = kept is False or any(seed.get("status") == "left_behind" for seed in trial.get("seeds") or ())
    ended = "left behind" if behind else "goes on" if kept else ""
    test = (trial.get("metrics") or {}).get("test_mean")
    return Trial(
        int(trial["trial"]), trial.get("recipe") or {}, int(trial["steps"]), trial.get("metric"), test, ended
    )


def _seen(number: int, recipe: Mapping[str, Any], seeds: int, view: JobView) -> Trial:
    """What the evaluations of a trial's seeds say before its rung is over."""
    places = range(number * seeds, (number + 1) * seeds)
    prompts = [view.prompts[place] for place in places if place in view.prompts]
    best = [prompt.best[0] for prompt in prompts if prompt.best is not None]
    steps = max((step for prompt in prompts for step, _ in prompt.curve), default=0)
    deviation = stdev(best) if len(best) > 1 else None
    metric = {"mean": fmean(best), "deviation": deviation, "count": len(best)} if best else None
    return Trial(number, recipe, int(steps), metric, None, "")


def _mean(trial: Trial) -> float:
    return float(trial.metric["mean"]) if trial.metric else -float("inf")
