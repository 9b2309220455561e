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
        goes_on: whether it trains on in the next rung; None after the last.
    """

    number: int
    knobs: Mapping[str, Any]
    places: tuple[int, ...]
    standings: tuple[PromptProgress, ...]
    rung: int
    steps: int
    goes_on: bool | None = None

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
        return Trial(number, knobs, places, standings, rung, states[0][0].step)

    @property
    def metrics(self) -> list[float]:
        """The best metric of each seed; none if one was never measured."""
        found = [standing.best_metric for standing in self.standings]
        return [each for each in found if each is not None] if None not in found else []

    @property
    def rank(self) -> tuple[bool, int, bool, float, int]:
        """Larger is better. Those of which every seed diverged are the last; of the others, one of a later
        rung comes before one of an earlier, in a rung one without diverged seeds before one with some, then
        the mean of the metric counts, and of equal ones the first is better."""
        whole = [standing.status != "diverged" for standing in self.standings]
        return any(whole), self.rung, all(whole), fmean(self.metrics or [-float("inf")]), -self.number

    @property
    def able(self) -> bool:
        """Whether one of its seeds can become a version."""
        return any(each.status != "diverged" and each.best_step is not None for each in self.standings)

    def best_seed(self, good: Sequence[bool]) -> int | None:
        """Which of its good seeds has the best metric; None if none is good."""
        able = [n for n, ok in enumerate(good) if ok]
        return max(able, key=lambda n: (_or_least(self.standings[n].best_metric), -n), default=None)

    def to_json(self) -> dict[str, Any]:
        """For the job's result and its events."""
        steps, seconds = self._converged()
        # Of a prompt that its run trains no further, the run does not say how it ended.
        ended = {None: "finished", True: "running", False: "left_behind"}[self.goes_on]
        return {
            "trial": self.number,
            "recipe": dict(self.knobs),
            "steps": self.steps,
            "metric": mean_and_deviation(self.metrics),
            "seeds": [
                {
                    "status": ended if standing.status in ("running", "finished") else standing.status,
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
        near = (
            next((each for each in validations_of(standing) if each["metrics"]["mean"] >= enough), None)
            for standing in self.standings
        )
        firsts = [each for each in near if each is not None]
        return [float(each["step"]) for each in firsts], [each["seconds"] for each in firsts]


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
