"""The last stage: trained prompts become versions, and an ensemble if the job asks for one.

To publish twice changes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.recipe import SENTINEL_SETTING, SPECIAL_TOKENS_SETTING
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.calibrate import calibrate
from chorus_server.tuning.jobs.stages.lineage import lineage_of
from chorus_server.tuning.jobs.stages.mistakes import mistakes_of, save_mistakes
from chorus_server.tuning.jobs.stages.validate import Validated
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import PromptProgress, TrainingState
from prompts_store.digests import prompt_digest
from prompts_store.names import LIVE
from prompts_store.records import (
    Calibration,
    EnsembleMember,
    FittedCalibration,
    PromptManifest,
)


def is_good(standing: PromptProgress) -> bool:
    """Whether a prompt becomes a version: it was trained to the end, or until it got no better."""
    return standing.status in ("finished", "stopped_early") and standing.best_step is not None


def publish(
    attempt: Attempt,
    validated: Validated,
    run: TrainingRun,
    programs: TuningPrograms,
    state: TrainingState,
) -> None:
    """Calibrate and register every good prompt, then the ensemble, then promote; each only while the lease
    holds.

    Raises:
        LeaseLostError: another process has, or had, the job.
        StoreError: the disk or the database failed; another call goes on where this one stopped.
    """
    held = attempt.held
    attempt.begin("publishing")
    held.check()
    good = [is_good(standing) for standing in state.standings]
    fitted = calibrate(attempt, run, programs, state.best, good)
    result = result_of(validated, state)
    events: list[tuple[str, dict[str, Any]]] = []
    mistakes: list[dict[str, Any] | None] = []
    for place, ok in enumerate(good):
        if ok:
            found = result["prompts"][place]
            found |= publish_one(attempt, validated, run, state, place, fitted[place])
            events.append(("published", {"prompt": place, **found}))
            mistakes.append(mistakes_of(attempt, run, state, place, found))
    result["ensemble"] = _ensemble(attempt, validated.document, result["prompts"], state)
    if result["ensemble"] is not None:
        events.append(("published", {"ensemble": result["ensemble"]}))
    promote(attempt, validated.document, result["prompts"])
    result["mistakes"] = save_mistakes(attempt, mistakes)
    succeed(attempt, result, events)


def succeed(
    attempt: Attempt, result: Mapping[str, Any], events: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """End a job whose versions are made."""
    attempt.held.tell(events)
    attempt.progress |= {"phase": "done", "runs_without_progress": 0, "seconds_left": 0.0}
    attempt.save_progress()
    attempt.held.finish("succeeded", result=result)
    shutil.rmtree(attempt.folder, ignore_errors=True)


def result_of(validated: Validated, state: TrainingState) -> dict[str, Any]:
    """How each prompt ended, and which split chose its values; versions are added as they are made."""
    prompts = [facts_of(validated, state, place) for place in range(len(validated.members))]
    return {"prompts": prompts, "ensemble": None}


def facts_of(validated: Validated, state: TrainingState, place: int) -> dict[str, Any]:
    """How one prompt ended, and which split chose its values."""
    member, standing = validated.members[place], state.standings[place]
    return {
        "task": member.task,
        "index": member.index,
        "status": standing.status,
        "message": standing.message,
        "best_step": standing.best_step,
        "best_metric": standing.best_metric,
        "metrics": metrics_of(standing),
        "chosen_on": validated.lineages[place]["chosen_on"],
    }


def metrics_of(standing: PromptProgress) -> dict[str, float]:
    """Metrics of the chosen values on each split: `validation_accuracy`, `test_accuracy`, ..."""
    found: dict[str, float] = {}
    for each in standing.evaluations:
        if each["step"] == standing.best_step:
            found |= {f"{each['split']}_{name}": value for name, value in each["metrics"].items()}
    return found


def calibration_facts(made: Calibration | None) -> dict[str, Any] | None:
    """What a job says of a calibration: all of it stands beside the version."""
    if made is None:
        return None
    measures = made.fitted.measures
    return {
        "calibration": made.number,
        "temperature": made.fitted.temperature,
        "rows": made.fitted.rows,
        "ece_raw": measures["raw"]["ece"],
        "ece": measures["calibrated"]["ece"],
    }


def publish_one(
    attempt: Attempt,
    validated: Validated,
    run: TrainingRun,
    state: TrainingState,
    place: int,
    fitted: FittedCalibration | None,
    trial: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make a version of one prompt; what the job's result says of it.

    Args:
        trial: for the lineage, see `lineage_of`.
    """
    member = validated.members[place]
    values = np.ascontiguousarray(state.best[place], np.float32)
    settings = dict(member.settings)
    if member.recipe.sentinel_before_target:
        settings[SENTINEL_SETTING] = True
    if member.recipe.special_tokens:
        settings[SPECIAL_TOKENS_SETTING] = True
    manifest = PromptManifest(
        prompt_digest(values),
        length=values.shape[0],
        width=values.shape[1],
        base_fingerprint=attempt.base.fingerprint,
        template=member.template,
        labels=member.labels,
        settings=settings,
    )
    version = attempt.store.publish(
        attempt.job.tenant,
        member.task,
        values,
        manifest,
        created_by=attempt.job.created_by,
        lineage=lineage_of(attempt, validated, run, state, place, trial),
        metrics=metrics_of(state.standings[place]),
        description=member.description,
        calibration=fitted,
        lease=attempt.held.lease,
    ).version
    return {
        "version": version.number,
        "digest": version.manifest.digest,
        "reference": f"{version.tenant}/{version.task}@{version.number}",
        "calibration": calibration_facts(version.calibration),
    }


def _ensemble(
    attempt: Attempt, document: JobDocument, prompts: Sequence[Mapping[str, Any]], state: TrainingState
) -> dict[str, Any] | None:
    """The ensemble of the versions that were made, if at least two of them differ, with its metrics on the
    test split."""
    name, tenant = document.ensemble_name, attempt.job.tenant
    numbers = dict.fromkeys((each["task"], each["version"]) for each in prompts if "version" in each)
    if name is None or len(numbers) < 2:
        return None
    members = [EnsembleMember(tenant, task, number) for task, number in numbers]
    made, _ = attempt.store.publish_ensemble(
        tenant, name, members, created_by=attempt.job.created_by, lease=attempt.held.lease
    )
    return {
        "name": name,
        "version": made.number,
        "members": [f"{member.tenant}/{member.task}@{member.version}" for member in members],
        "reference": f"{tenant}/{name}@{made.number}",
        "metrics": {f"test_{metric}": value for metric, value in (state.ensemble_metrics or {}).items()},
    }


def promote(attempt: Attempt, document: JobDocument, prompts: Sequence[Mapping[str, Any]]) -> None:
    """If the job asks for it, point `@live` of each task at its best new version."""
    if not document.promote:
        return
    made = [each for each in prompts if "version" in each]
    job, lease = attempt.job, attempt.held.lease
    for task in dict.fromkeys(each["task"] for each in made):
        best = max((each for each in made if each["task"] == task), key=_metric)
        attempt.store.set_alias(job.tenant, task, LIVE, best["version"], moved_by=job.created_by, lease=lease)


def _metric(prompt: Mapping[str, Any]) -> float:
    return -float("inf") if prompt["best_metric"] is None else float(prompt["best_metric"])
