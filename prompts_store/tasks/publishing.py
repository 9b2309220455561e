"""The rows of a new version. The caller has made its blob durable and holds the publish lock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, update

from prompts_store.audit import chain
from prompts_store.database.tables import tasks, versions
from prompts_store.names import LIVE
from prompts_store.records import FittedCalibration, PromptManifest, PromptVersion, Reference
from prompts_store.tasks import aliasing, counts
from prompts_store.tasks.calibrations import add_calibration
from prompts_store.tasks.rows import open_task, refresh_labels, select_versions, version_record
from prompts_store.tasks.versions import resolve
from prompts_store.tenants import stored


@dataclass(frozen=True, slots=True)
class Draft:
    """A version without a number, already checked.

    Attributes:
        size_bytes: size of its blob.
        description: description of the task; None leaves it unchanged.
        calibration: what was fitted to it; None if nothing was.
    """

    tenant: str
    task: str
    manifest: PromptManifest
    manifest_digest: str
    settings: Mapping[str, Any]
    lineage: Mapping[str, Any]
    metrics: Mapping[str, float]
    description: str | None
    created_by: str
    size_bytes: int
    calibration: FittedCalibration | None = None


def find_same(connection: Connection, draft: Draft) -> PromptVersion | None:
    """The task's live version with the same manifest."""
    query = select_versions().where(
        tasks.c.tenant == draft.tenant,
        tasks.c.name == draft.task,
        versions.c.manifest_digest == draft.manifest_digest,
        versions.c.deleted_at.is_(None),
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else version_record(row)


def add_version(connection: Connection, draft: Draft, now: datetime) -> PromptVersion:
    """Give a draft the next number, and `@live` if it is the task's first version.

    Raises:
        NotFoundError: `unknown_tenant`: the tenant was deleted.
        LimitError: `limit_exceeded`.
    """
    task, is_new = open_task(connection, draft.tenant, draft.task, draft.description, now)
    kept = {"prompts": 1, "prompt_bytes": stored.VALUE_BYTES * draft.manifest.length * draft.manifest.width}
    stored.require_room(connection, draft.tenant, **kept)
    stored.add(connection, draft.tenant, **kept)
    number = task.last_number + 1
    counts.retain(connection, draft.manifest.digest, draft.size_bytes)
    connection.execute(
        insert(versions).values(task_id=task.id, number=number, created_at=now, **_columns(draft))
    )
    connection.execute(
        update(tasks)
        .where(tasks.c.id == task.id)
        .values(last_number=number, live_versions=tasks.c.live_versions + 1)
    )
    facts = {"digest": draft.manifest.digest, "manifest_digest": draft.manifest_digest}
    chain.append(connection, "task.publish", draft.tenant, f"{draft.task}@{number}", now=now, after=facts)
    if is_new:
        aliasing.move(connection, aliasing.TASKS, task.id, LIVE, number, moved_by=draft.created_by, now=now)
        refresh_labels(connection, task.id)
    return calibrated(connection, draft, number, now)


def calibrated(connection: Connection, draft: Draft, number: int, now: datetime) -> PromptVersion:
    """The version, with what was fitted to it, unless it has that already."""
    reference = Reference(draft.tenant, draft.task, version=number, alias=None)
    row = resolve(connection, reference)
    version = version_record(row)
    if draft.calibration is None:
        return version
    made = add_calibration(connection, row, draft.calibration, draft.created_by, now)
    return replace(version, calibration=made)


def _columns(draft: Draft) -> dict[str, Any]:
    manifest = draft.manifest
    return {
        "kind": manifest.kind,
        "digest": manifest.digest,
        "blob_digest": manifest.digest,
        "manifest_digest": draft.manifest_digest,
        "length": manifest.length,
        "width": manifest.width,
        "base_fingerprint": manifest.base_fingerprint,
        "template": manifest.template,
        "labels": list(manifest.labels),
        "settings": draft.settings,
        "lineage": draft.lineage,
        "metrics": draft.metrics,
        "created_by": draft.created_by,
    }
