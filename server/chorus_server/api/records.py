"""The store's records as JSON objects, by the names of docs/rest.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from chorus_server.tuning.document.earlier_names import renamed_version
from prompts_store.base import utc_now
from prompts_store.grants.records import Grant, Shared
from prompts_store.jobs.records import Job
from prompts_store.records import (
    AliasMove,
    Calibration,
    EnsembleVersion,
    ListRecord,
    PackVersion,
    PromptVersion,
    TaskRecord,
)
from prompts_store.tenants.records import Key, Tenant


def version_json(version: PromptVersion, aliases: Mapping[str, int]) -> dict[str, Any]:
    """One version; `aliases` are all those of its task."""
    manifest = version.manifest
    lineage, metrics = renamed_version(version.lineage, version.metrics)
    return {
        "task": f"{version.tenant}/{version.task}",
        "version": version.number,
        "digest": manifest.digest,
        "manifest_digest": version.manifest_digest,
        "kind": manifest.kind,
        "length": manifest.length,
        "width": manifest.width,
        "base_fingerprint": manifest.base_fingerprint,
        "template": manifest.template,
        "labels": list(manifest.labels),
        "settings": dict(manifest.settings),
        "lineage": lineage,
        "metrics": metrics,
        "created_at": version.created_at,
        "created_by": version.created_by,
        "aliases": sorted(alias for alias, number in aliases.items() if number == version.number),
        "calibration": None if version.calibration is None else version.calibration.number,
    }


def calibration_json(task: str, version: int, made: Calibration) -> dict[str, Any]:
    """One calibration of a version."""
    fitted = made.fitted
    prior = None if fitted.prior is None else dict(zip(fitted.labels, fitted.prior, strict=True))
    return {
        "task": task,
        "version": version,
        "calibration": made.number,
        "labels": list(fitted.labels),
        "matrix_dtype": fitted.matrix_dtype,
        "temperature": fitted.temperature,
        "prior": prior,
        "rows": fitted.rows,
        "measures": dict(fitted.measures),
        "source": dict(fitted.source),
        "created_at": made.created_at,
        "created_by": made.created_by,
    }


def state_json(job: Job) -> dict[str, Any]:
    """When a job of any kind began and ended, and how far it is: a part of its answer."""
    return {
        "created_at": job.created_at,
        "created_by": job.created_by,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error": job.error,
        "progress": job.progress,
    }


def calibration_job_json(job: Job) -> dict[str, Any]:
    """A job that calibrates a version."""
    return {
        "id": job.id,
        "task": f"{job.tenant}/{job.spec['task']}",
        "version": job.spec["version"],
        "status": job.status,
        "spec": job.spec["document"],
        **state_json(job),
        "result": job.result,
        "cancel_requested": job.cancel_requested,
        "attempt": job.attempt,
    }


def task_json(task: TaskRecord) -> dict[str, Any]:
    """One task."""
    return {
        "task": f"{task.tenant}/{task.name}",
        "description": task.description,
        "created_at": task.created_at,
        "versions": task.versions,
        "latest": task.latest,
        "aliases": dict(task.aliases),
        "live": None
        if task.live is None
        else {
            "version": task.live.number,
            "labels": list(task.live.labels),
            "metrics": dict(task.live.metrics),
        },
        "last_move": None if task.last_move is None else history_json(task.last_move),
    }


def move_json(move: AliasMove) -> dict[str, Any]:
    """An alias after a move."""
    return {"alias": move.alias, "version": move.version, "previous": move.previous}


def history_json(move: AliasMove) -> dict[str, Any]:
    """One entry of an alias's history."""
    return {**move_json(move), "moved_at": move.moved_at, "moved_by": move.moved_by}


def ensemble_json(ensemble: EnsembleVersion, record: ListRecord[EnsembleVersion]) -> dict[str, Any]:
    """One version of an ensemble, of which the record tells where its aliases point."""
    return {
        "ensemble": f"{ensemble.tenant}/{ensemble.name}",
        "version": ensemble.number,
        "vote": ensemble.vote,
        "members": [
            {"task": f"{member.tenant}/{member.task}", "version": member.version, "weight": member.weight}
            for member in ensemble.members
        ],
        "digest": ensemble.digest,
        "created_at": ensemble.created_at,
        "aliases": dict(record.aliases),
        "back": dict(record.back),
    }


def pack_json(pack: PackVersion, record: ListRecord[PackVersion]) -> dict[str, Any]:
    """One version of a pack, of which the record tells where its aliases point."""
    return {
        "pack": f"{pack.tenant}/{pack.name}",
        "version": pack.number,
        "questions": {
            entry.question: {
                "task": f"{entry.tenant}/{entry.task}",
                "version": entry.version,
                "values": dict(entry.labels),
            }
            for entry in pack.entries
        },
        "unknown_questions": pack.unknown_questions,
        "digest": pack.digest,
        "created_at": pack.created_at,
        "aliases": dict(record.aliases),
        "back": dict(record.back),
    }


def grant_json(grant: Grant) -> dict[str, Any]:
    """A grant of a task, an ensemble or a pack that is known."""
    return {
        "grantee": grant.grantee,
        "rights": list(grant.rights),
        "created_at": grant.created_at,
        "created_by": grant.created_by,
    }


def shared_json(shared: Shared) -> dict[str, Any]:
    """What another tenant shares."""
    reference = f"{shared.tenant}/{shared.name}"
    return {"kind": shared.kind, "reference": reference, "rights": list(shared.rights)}


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    """A tenant."""
    return {
        "tenant": tenant.name,
        "display_name": tenant.display_name,
        "weight": tenant.weight,
        "status": tenant.status,
        "limits": tenant.limits.document(),
        "retention": asdict(tenant.retention),
        "created_at": tenant.created_at,
        "created_by": tenant.created_by,
        "suspended_at": tenant.suspended_at,
        "deleted_at": tenant.deleted_at,
        "purge_after": tenant.purge_after,
    }


def key_json(key: Key) -> dict[str, Any]:
    """A key, without its secret."""
    over = "revoked" if key.revoked_at is not None else "expired"
    return {
        "id": key.id,
        "tenant": key.tenant,
        "public": key.public,
        "name": key.name,
        "scopes": list(key.scopes),
        "tasks": None if key.tasks is None else list(key.tasks),
        "limits": key.limits.document(),
        "status": "live" if key.is_live(utc_now()) else over,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
