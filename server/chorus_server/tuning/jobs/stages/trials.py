"""What a search found of each recipe: mean and deviation over its seeds, and when it was nearly there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from chorus_server.tuning.training.state import PromptProgress, TrainingState

NEAR = 0.01
"""A seed has converged when its metric is within this share of the mean of its recipe (Lester et al. 2021,
Table 5)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe of a search.

    Attributes:
        number: from 0.
        knobs: in which its recipe differs from the job's.
        places: of its seeds among all prompts of the job.
        standings: of each seed.
        rung: the last that it was trained up to, from 0.
        steps: up to which it was trained.
        seconds_at: how long the device had worked on its run at each evaluation.
    """

    number: int
    knobs: Mapping[str, Any]
    places: tuple[int, ...]
    standings: tuple[PromptProgress, ...]
    rung: int
    steps: int
    seconds_at: Mapping[int, float]

    @staticmethod
    def of(
        number: int,
        knobs: Mapping[str, Any],
        places: tuple[int, ...],
        rung: int,
        newest: Mapping[int, tuple[TrainingState, int]],
    ) -> Trial:
        """A trial as the newest states of its seeds show it: of each place the state, and the place there."""
        states = [newest[place] for place in places]
        standings = tuple(state.standings[place] for state, place in states)
        first = states[0][0]
        return Trial(number, knobs, places, standings, rung, first.step, first.seconds_at)

    @property
    def metrics(self) -> list[float]:
        """The best metric of each seed; none if one was never measured."""
        found = [standing.best_metric for standing in self.standings]
        return [each for each in found if each is not None] if None not in found else []

    @property
    def rank(self) -> tuple[bool, int, float, int]:
        """Larger is better: whole before diverged, of a later rung before an earlier one, then by the mean of
        the metric, and of equal ones the first."""
        whole = all(standing.status != "diverged" for standing in self.standings)
        return whole, self.rung, fmean(self.metrics or [-float("inf")]), -self.number

    def best_seed(self, good: Sequence[bool]) -> int | None:
        """Which of its good seeds has the best metric; None if none is good."""
        able = [n for n, ok in enumerate(good) if ok]
        return max(able, key=lambda n: (_or_least(self.standings[n].best_metric), -n), default=None)

    def to_json(self) -> dict[str, Any]:
        """For the job's result and its events."""
        steps, seconds = self._converged()
        return {
            "trial": self.number,
            "recipe": dict(self.knobs),
            "steps": self.steps,
            "metric": mean_and_deviation(self.metrics),
            "seeds": [
                {
                    # One that was left behind, or not measured on test, has no end of its own.
                    "status": "finished" if standing.status == "running" else standing.status,
                    "best_step": standing.best_step,
                    "best_metric": standing.best_metric,
                }
                for standing in self.standings
            ],
            "converged_step": mean_and_deviation(steps),
            "converged_seconds": mean_and_deviation(seconds),
        }

    def _converged(self) -> tuple[list[float], list[float]]:
        """Of each seed, the step and the seconds at its first evaluation that comes near the mean. A seed
        that stays below does not count."""
        if not self.metrics:
            return [], []
        mean = fmean(self.metrics)
        enough = mean - NEAR * abs(mean)
        firsts = [
            next(
                (each["step"] for each in validations_of(standing) if each["metrics"]["mean"] >= enough),
                None,
            )
            for standing in self.standings
        ]
        steps = [step for step in firsts if step is not None]
        return [float(step) for step in steps], [self.seconds_at[s] for s in steps if s in self.seconds_at]


def validations_of(standing: PromptProgress) -> list[Mapping[str, Any]]:
    """Its evaluations on the validation split, in order."""
    return [each for each in standing.evaluations if each["split"] == "validation"]


def mean_and_deviation(values: Sequence[float]) -> dict[str, float | int | None] | None:
    """Mean and standard deviation (of a sample: over n - 1) of numbers, and how many they are; None of none.
    A single number has no deviation."""
    if not values:
        return None
    deviation = stdev(values) if len(values) > 1 else None
    return {
        "mean": round(fmean(values), 6),
        "deviation": None if deviation is None else round(deviation, 6),
        "count": len(values),
    }


def spread_by_name(found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and deviation of each metric over the prompts that have it."""
    names = dict.fromkeys(name for metrics in found for name in metrics)
    return {
        name: mean_and_deviation([metrics[name] for metrics in found if name in metrics]) for name in names
    }


def _or_least(metric: float | None) -> float:
    return -float("inf") if metric is None else metric
