"""Lineage of a tuned version: enough to make it again, and to know how it was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.validate import Validated
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import TrainingState
from prompts_store.digests import canonical_json
from prompts_store.records import BASE_MODEL_NAME
from prompts_store.tasks.manifests import MAX_LINEAGE_BYTES

_CURVE_POINTS = 200
_EVALUATIONS = 100


def lineage_of(
    attempt: Attempt,
    validated: Validated,
    run: TrainingRun,
    state: TrainingState,
    place: int,
    trial: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The lineage of one prompt of a job: JSON of some kilobytes, never more than a version may have.

    Args:
        trial: of the search that chose the prompt, what it found of this recipe.
    """
    base, data = attempt.base, validated.lineages[place]
    entry, task, standing = validated.members[place], run.tasks[place], state.standings[place]
    lineage = {
        "source": "tuning",
        "job": attempt.job.id,
        "seed": run.seed,
        "index": entry.index,
        "recipe": task.recipe.to_json(),
        "base_fingerprint": base.fingerprint,
        BASE_MODEL_NAME: base.functions.config.name,
        "matrix_dtype": base.matrix_dtype,
        "initial_prompt": entry.initial_prompt,
        "data": data["data"],
        "columns": dict(entry.columns),
        "target": entry.target,
        "target_texts": dict(entry.target_texts),
        "chosen_on": data["chosen_on"],
        "answer_by": "ranked" if task.ranks else "greedy",
        "status": standing.status,
        "steps": state.step,
        "best_step": standing.best_step,
        "evaluations": _thinned(standing.evaluations, _EVALUATIONS),
        "curve": curve([losses[place] for losses in state.losses]),
        "prompts_in_job": len(validated.document.members),
        **({} if trial is None else {"trial": trial}),
        "code_version": attempt.config.code_version,
        "jax_version": jax.__version__,
        "platform": jax.default_backend(),
    }
    return fitting(lineage, MAX_LINEAGE_BYTES)


def fitting(lineage: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The lineage in at most so many bytes. Its largest parts are left out, and named in `left_out`, if it
    would be larger: the job's `spec` has them, and hours of training must not be lost over them."""
    found = dict(lineage)
    without_text = {**found["recipe"], "initialiser_text": None, "initialiser_words": None}
    smaller = {"target_texts": None, "columns": None, "recipe": without_text, "evaluations": None}
    for name, value in smaller.items():
        if len(canonical_json(found)) <= most:
            break
        found[name] = value
        found["left_out"] = [*found.get("left_out", ()), name]
    return found


def curve(losses: Sequence[Any], points: int = _CURVE_POINTS) -> dict[str, list[Any]]:
    """A loss curve of at most so many points. Each is the mean over a stretch of steps, at its last step;
    stretches without a finite loss are left out."""
    steps, means = [], []
    for stretch in np.array_split(np.arange(len(losses)), min(points, max(1, len(losses)))):
        values = np.asarray([losses[n] for n in stretch], np.float64)
        values = values[np.isfinite(values)]
        if len(values):
            steps.append(int(stretch[-1]) + 1)
            means.append(round(float(values.mean()), 6))
    return {"step": steps, "loss": means}


def _thinned(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly spaced, the last one included."""
    if len(items) <= most:
        return list(items)
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[n] for n in places]
