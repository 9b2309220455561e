"""Rows as the records that the store hands out, and the columns that they are made from."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, func, select

from prompts_store.database.tables import tasks, versions
from prompts_store.records import AliasMove, PromptManifest, PromptVersion, TaskRecord

VERSION_COLUMNS: tuple[ColumnElement[Any], ...] = (
    versions.c.id,
    versions.c.task_id,
    tasks.c.tenant,
    tasks.c.name,
    versions.c.number,
    versions.c.kind,
    versions.c.digest,
    versions.c.manifest_digest,
    versions.c.length,
    versions.c.width,
    versions.c.base_fingerprint,
    versions.c.template,
    versions.c.labels,
    versions.c.settings,
    versions.c.lineage,
    versions.c.metrics,
    versions.c.created_at,
    versions.c.created_by,
    versions.c.deleted_at,
)

# One step in an index, not a count.
_LATEST = (
    select(func.max(versions.c.number))
    .where(versions.c.task_id == tasks.c.id, versions.c.deleted_at.is_(None))
    .correlate(tasks)
    .scalar_subquery()
)

TASK_COLUMNS: tuple[ColumnElement[Any], ...] = (
    tasks.c.id,
    tasks.c.tenant,
    tasks.c.name,
    tasks.c.description,
    tasks.c.created_at,
    tasks.c.live_versions,
    func.coalesce(_LATEST, 0).label("latest"),
)


def version_record(row: Row[Any]) -> PromptVersion:
    """A version from `VERSION_COLUMNS`."""
    return PromptVersion(
        tenant=row.tenant,
        task=row.name,
        number=row.number,
        manifest=PromptManifest(
            digest=row.digest,
            length=row.length,
            width=row.width,
            base_fingerprint=row.base_fingerprint,
            template=row.template,
            labels=tuple(row.labels),
            settings=row.settings,
            kind=row.kind,
        ),
        manifest_digest=row.manifest_digest,
        created_at=row.created_at,
        created_by=row.created_by,
        lineage=row.lineage,
        metrics=row.metrics,
        deleted_at=row.deleted_at,
    )


def task_record(row: Row[Any], aliases: dict[str, int]) -> TaskRecord:
    """A task from `TASK_COLUMNS`."""
    return TaskRecord(
        tenant=row.tenant,
        name=row.name,
        created_at=row.created_at,
        versions=row.live_versions,
        latest=row.latest,
        aliases=aliases,
        description=row.description,
    )


def move_record(row: Row[Any]) -> AliasMove:
    """An alias's move from the columns of `alias_moves`, or of the ensembles' table of the same form."""
    return AliasMove(row.alias, row.number, row.previous, row.moved_at, row.moved_by)
