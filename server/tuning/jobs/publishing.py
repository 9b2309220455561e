"""A finished job becomes versions, and an ensemble where one was asked for. Done twice it changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prompts_store.digests import prompt_digest
from prompts_store.jobs import records
from prompts_store.names import LIVE
from prompts_store.records import AliasMove, EnsembleMember, EnsembleVersion, PromptManifest, Published
from server.tuning.document.recipe import SENTINEL_SETTING
from server.tuning.jobs.config import TuningBase
from server.tuning.jobs.lineage import lineage_of
from server.tuning.jobs.preparing import Prepared
from server.tuning.training.run import TrainingRun
from server.tuning.training.state import Standing, TrainingState


class PromptPublisher(Protocol):
    """The part of `PromptStore` that makes versions."""

    def publish(
        self,
        tenant: str,
        task: str,
        values: npt.NDArray[np.float32],
        manifest: PromptManifest,
        *,
        created_by: str = "",
        lineage: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str | None = None,
        lease: records.Lease | None = None,
    ) -> Published: ...

    def publish_ensemble(
        self,
        tenant: str,
        name: str,
        members: Sequence[EnsembleMember],
        *,
        created_by: str = "",
        lease: records.Lease | None = None,
    ) -> tuple[EnsembleVersion, bool]: ...

    def set_alias(
        self,
        tenant: str,
        task: str,
        alias: str,
        number: int,
        *,
        moved_by: str = "",
        lease: records.Lease | None = None,
    ) -> AliasMove: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job made.

    Attributes:
        result: for the job's record.
        events: for its events.
    """

    result: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]


def is_good(standing: Standing) -> bool:
    """Whether a prompt becomes a version: it was trained to its end, or as far as it got better."""
    return standing.status in ("finished", "stopped_early") and standing.best_step is not None


def publish(
    store: PromptPublisher,
    record: records.Job,
    lease: records.Lease,
    prepared: Prepared,
    job: TrainingRun,
    state: TrainingState,
    base: TuningBase,
    code_version: str,
) -> Outcome:
    """Register every good prompt, then the ensemble, then promote: each only while the lease holds.

    Raises:
        LeaseLostError: another runs the job, or did.
        StoreError: the disk or the database failed; doing it again goes on where it stopped.
    """
    prompts, events = [], []
    for place, standing in enumerate(state.standings):
        found = report_of(prepared, place, standing)
        if is_good(standing):
            made = _publish_one(store, record, lease, prepared, job, state, place, base, code_version)
            version = made.version
            found |= {
                "version": version.number,
                "digest": version.manifest.digest,
                "reference": f"{version.tenant}/{version.task}@{version.number}",
            }
            events.append(("published", {"prompt": place, **found}))
        prompts.append(found)
    ensemble = _ensemble(store, record, lease, prepared, prompts)
    if ensemble is not None:
        events.append(("published", {"ensemble": ensemble}))
    _promote(store, record, lease, prepared, prompts)
    return Outcome({"prompts": prompts, "ensemble": ensemble}, events)


def report_of(prepared: Prepared, place: int, standing: Standing) -> dict[str, Any]:
    """How one prompt ended."""
    member = prepared.spec.members[place]
    return {
        "task": member.task,
        "index": member.index,
        "status": standing.status,
        "message": standing.message,
        "best_step": standing.best_step,
        "best_metric": standing.best_metric,
        "metrics": metrics_of(standing),
    }


def metrics_of(standing: Standing) -> dict[str, float]:
    """`selection_accuracy`, `report_accuracy`, ...: of the chosen values on each split."""
    found: dict[str, float] = {}
    for each in standing.evaluations:
        if each["step"] == standing.best_step:
            found |= {f"{each['split']}_{name}": value for name, value in each["metrics"].items()}
    return found


def _publish_one(
    store: PromptPublisher,
    record: records.Job,
    lease: records.Lease,
    prepared: Prepared,
    job: TrainingRun,
    state: TrainingState,
    place: int,
    base: TuningBase,
    code_version: str,
) -> Published:
    member = prepared.spec.members[place]
    values = np.ascontiguousarray(state.best[place], np.float32)
    settings = dict(member.settings)
    if member.recipe.sentinel_before_target:
        settings[SENTINEL_SETTING] = True
    manifest = PromptManifest(
        prompt_digest(values),
        length=values.shape[0],
        width=values.shape[1],
        base_fingerprint=base.fingerprint,
        template=member.template,
        labels=member.labels,
        settings=settings,
    )
    return store.publish(
        record.tenant,
        member.task,
        values,
        manifest,
        created_by=record.created_by,
        lineage=lineage_of(record, prepared, job, state, place, base, code_version),
        metrics=metrics_of(state.standings[place]),
        description=member.description,
        lease=lease,
    )


def _ensemble(
    store: PromptPublisher,
    record: records.Job,
    lease: records.Lease,
    prepared: Prepared,
    prompts: Sequence[Mapping[str, Any]],
) -> dict[str, Any] | None:
    """The ensemble of the versions that were made, at least two different ones."""
    name = prepared.spec.ensemble_name
    numbers = dict.fromkeys((each["task"], each["version"]) for each in prompts if "version" in each)
    if name is None or len(numbers) < 2:
        return None
    members = [EnsembleMember(record.tenant, task, number) for task, number in numbers]
    made, _ = store.publish_ensemble(record.tenant, name, members, created_by=record.created_by, lease=lease)
    return {
        "name": name,
        "version": made.number,
        "members": [f"{member.tenant}/{member.task}@{member.version}" for member in members],
        "reference": f"{record.tenant}/{name}@{made.number}",
    }


def _promote(
    store: PromptPublisher,
    record: records.Job,
    lease: records.Lease,
    prepared: Prepared,
    prompts: Sequence[Mapping[str, Any]],
) -> None:
    """Point `@live` of each task at its best new version, where the job says so."""
    if not prepared.spec.promote:
        return
    best: dict[str, Mapping[str, Any]] = {}
    for each in prompts:
        if "version" in each and _metric(each) > _metric(best.get(each["task"])):
            best[each["task"]] = each
    for task, each in best.items():
        store.set_alias(record.tenant, task, LIVE, each["version"], moved_by=record.created_by, lease=lease)


def _metric(report: Mapping[str, Any] | None) -> float:
    if report is None:
        return -float("inf")
    return -1e300 if report["best_metric"] is None else float(report["best_metric"])
