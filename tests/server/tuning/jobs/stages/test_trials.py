"""What is said of a trial: mean, deviation, rank, and when it had nearly converged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chorus_server.tuning.jobs.stages.trials import Trial, mean_and_deviation, spread_by_name
from chorus_server.tuning.training.state import PromptProgress


def _seed(curve: dict[int, float], status: Any = "finished", pace: float = 0.15) -> PromptProgress:
    best = max(curve, key=lambda step: curve[step], default=None)
    evaluations = [
        {"step": step, "split": "validation", "metrics": {"mean": value}, "seconds": pace * step}
        for step, value in curve.items()
    ]
    return PromptProgress(status, best, None if best is None else curve[best], 0, evaluations)


def _trial(*seeds: PromptProgress, number: int = 0, rung: int = 0) -> Trial:
    return Trial(number, {}, tuple(range(len(seeds))), seeds, rung, 30)


def test_mean_and_deviation_are_those_of_a_sample() -> None:
    # By hand: deviations -1, 0, 1; squares sum to 2; over n - 1 = 2.
    assert mean_and_deviation([1, 2, 3]) == {"mean": 2, "deviation": 1, "count": 3}
    assert mean_and_deviation([0.5]) == {"mean": 0.5, "deviation": None, "count": 1}
    assert mean_and_deviation([]) is None
    found = spread_by_name([{"a": 1.0}, {"a": 3.0, "b": 5.0}])
    assert found["a"]["mean"] == 2 and found["b"] == {"mean": 5.0, "deviation": None, "count": 1}


def test_a_seed_has_converged_within_a_hundredth_of_the_mean() -> None:
    # The mean of the best is 0.9; within 1 % is 0.891 or more.
    trial = _trial(_seed({10: 0.5, 20: 0.892, 30: 0.9}), _seed({10: 0.891, 20: 0.7, 30: 0.9}))
    facts = trial.to_json()
    assert facts["metric"]["mean"] == 0.9
    assert facts["converged_step"] == {"mean": 15, "deviation": pytest.approx(7.071068), "count": 2}
    assert facts["converged_seconds"]["mean"] == 2.25


def test_each_seed_has_its_own_clock() -> None:
    trial = _trial(_seed({10: 0.9}, pace=0.1), _seed({10: 0.9}, pace=0.3))
    assert trial.to_json()["converged_seconds"]["mean"] == 2


def test_how_a_seed_ended_is_told_of_those_that_were_left_behind_too() -> None:
    trial = _trial(_seed({10: 0.9}, "running"), _seed({10: 0.8}, "diverged"), _seed({10: 0.8}))
    told = {
        goes_on: [seed["status"] for seed in replace(trial, goes_on=goes_on).to_json()["seeds"]]
        for goes_on in (None, True, False)
    }
    assert told[None] == ["finished", "diverged", "finished"]
    assert told[True] == ["running", "diverged", "running"]
    assert told[False] == ["left_behind", "diverged", "left_behind"]


def test_a_seed_that_stays_below_the_mean_does_not_count() -> None:
    facts = _trial(_seed({10: 0.5, 30: 1.0}), _seed({10: 0.6, 20: 0.5})).to_json()
    assert facts["converged_step"] == {"mean": 30, "deviation": None, "count": 1}
    assert _trial(_seed({}), _seed({10: 0.6})).to_json()["converged_step"] is None


def test_the_best_is_of_the_last_rung_then_whole_then_of_the_best_mean_then_the_first() -> None:
    lost = _trial(_seed({10: 1.0}, "diverged"), number=6, rung=2)
    finalist = _trial(_seed({10: 0.4}), _seed({10: 0.4}, "diverged"), number=5, rung=2)
    diverged = _trial(_seed({10: 1.0}), _seed({10: 1.0}, "diverged"), number=0, rung=1)
    early = _trial(_seed({10: 0.99}), number=1, rung=0)
    low = _trial(_seed({10: 0.5}), _seed({10: 0.6}), number=2, rung=1)
    high, same = _trial(_seed({10: 0.7}), number=3, rung=1), _trial(_seed({10: 0.7}), number=4, rung=1)
    every = (same, diverged, lost, finalist, early, low, high)
    ranked = sorted(every, key=lambda trial: trial.rank, reverse=True)
    assert [trial.number for trial in ranked] == [5, 3, 4, 2, 0, 1, 6]
    assert [trial.able for trial in ranked] == [True] * 6 + [False]


def test_the_best_seed_is_a_good_one() -> None:
    trial = _trial(_seed({10: 0.5}), _seed({10: 0.9}, "diverged"), _seed({10: 0.5}))
    assert trial.best_seed([True, False, True]) == 0
    assert trial.best_seed([False, False, False]) is None
