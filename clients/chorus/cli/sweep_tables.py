"""What a search is about to do, and what it found, as a line and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chorus.cli.output import clean, print_table
from chorus.cli.plot import short
from chorus.types import Job


def plan_of(job: Job) -> str | None:
    """How much a job with seeds or a sweep trains at most; None for any other job."""
    sweep, seeds = job.spec.get("sweep"), job.spec.get("seeds") or 1
    if not sweep and seeds == 1:
        return None
    trials: list[dict[str, Any]] = sweep["trials"] if sweep else [{}]
    usual = job.spec["prompts"][0]["recipe"]["steps"]
    steps, done = 0, 0
    for rung in (sweep or {}).get("rungs") or ():
        steps += (rung["steps"] - done) * rung["trials"] * seeds
        done = rung["steps"]
    steps = steps or sum(trial.get("steps", usual) * seeds for trial in trials)
    several = "s" if len(trials) > 1 else ""
    return (
        f"{len(trials)} trial{several}, {len(trials) * seeds} prompts, at most {steps} training steps in all"
    )


def print_trials(trials: Sequence[Mapping[str, Any]]) -> None:
    """The trials of a search, the best first: in what their recipes differ, how good they are, how soon."""
    knobs = list(dict.fromkeys(name for trial in trials for name in trial.get("recipe") or {}))
    heads = ("#trial", *knobs, "#steps", "#metric", "#test", "#converged at", "#seconds")
    print_table(heads, (_row(trial, knobs) for trial in trials))


def _row(trial: Mapping[str, Any], knobs: Sequence[str]) -> tuple[object, ...]:
    recipe, metrics = trial.get("recipe") or {}, trial.get("metrics") or {}
    return (
        trial.get("trial"),
        *(recipe.get(name) for name in knobs),
        trial.get("steps"),
        spread_text(trial.get("metric")),
        spread_text(metrics.get("test_mean")),
        spread_text(trial.get("converged_step")),
        spread_text(trial.get("converged_seconds")),
    )


def spread_text(spread: Mapping[str, Any] | None) -> str | None:
    """`0.91 ± 0.02`: mean and deviation."""
    if not spread:
        return None
    deviation = spread.get("deviation")
    return short(spread["mean"]) + ("" if deviation is None else f" ± {short(deviation)}")


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each recipe the knobs that are not the same in all of those that are known. How many examples a
    dispatch had is settled by the server, and left out; so is a knob where a recipe has none."""
    known = [recipe for recipe in recipes if recipe]
    names = dict.fromkeys(name for recipe in known for name in recipe if name != "micro_batch_size")
    differ = [name for name in names if any(each.get(name) != known[0].get(name) for each in known)]
    return [{name: recipe[name] for name in differ if recipe.get(name) is not None} for recipe in recipes]


def knobs_text(knobs: Mapping[str, Any]) -> str:
    """`learning_rate=0.1 steps=300`."""
    return " ".join(clean(f"{name}={value}") for name, value in knobs.items())
