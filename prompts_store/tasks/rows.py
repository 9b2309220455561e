"""Finding and opening rows of tasks and versions, and turning them into the records that the store
returns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from prompts_store.database.tables import (
    alias_moves,
    aliases,
    calibrations,
    task_labels,
    tasks,
    versions,
)
from prompts_store.errors import NotFoundError
from prompts_store.grants import rows as grants
from prompts_store.names import LIVE
from prompts_store.records import (
    Calibration,
    FittedCalibration,
    LiveVersion,
    PromptManifest,
    PromptVersion,
    TaskRecord,
)
from prompts_store.tasks import aliasing
from prompts_store.tenants import standing

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

CALIBRATION_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(
    column.label(f"calibration_{column.name}") for column in calibrations.c
)

_NEWEST = (
    select(func.max(calibrations.c.number))
    .where(calibrations.c.version_id == versions.c.id)
    .correlate(versions)
    .scalar_subquery()
)

# One step in an index, rather than a count.
_LATEST = (
    select(func.max(versions.c.number))
    .where(versions.c.task_id == tasks.c.id, versions.c.deleted_at.is_(None))
    .correlate(tasks)
    .scalar_subquery()
)

_LAST_MOVE = (
    select(func.max(alias_moves.c.id))
    .where(alias_moves.c.owner_id == tasks.c.id)
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
    func.coalesce(_LAST_MOVE, 0).label("last_move_id"),
)


def select_versions() -> Select[Any]:
    """Versions of every task, each with its newest calibration."""
    newest = and_(calibrations.c.version_id == versions.c.id, calibrations.c.number == _NEWEST)
    source = versions.join(tasks, tasks.c.id == versions.c.task_id).outerjoin(calibrations, newest)
    return select(*VERSION_COLUMNS, *CALIBRATION_COLUMNS).select_from(source)


def calibration_record(row: Row[Any]) -> Calibration:
    """A calibration, from `CALIBRATION_COLUMNS`."""
    return Calibration(
        number=row.calibration_number,
        fitted=FittedCalibration(
            labels=tuple(row.calibration_labels),
            matrix_dtype=row.calibration_matrix_dtype,
            temperature=row.calibration_temperature,
            prior=None if row.calibration_prior is None else tuple(row.calibration_prior),
            rows=row.calibration_rows,
            measures=row.calibration_measures,
            source=row.calibration_source,
        ),
        created_at=row.calibration_created_at,
        created_by=row.calibration_created_by,
    )


def version_record(row: Row[Any]) -> PromptVersion:
    """A version, from `select_versions`."""
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
        calibration=None if row.calibration_number is None else calibration_record(row),
    )


def task_records(connection: Connection, rows: Sequence[Row[Any]]) -> list[TaskRecord]:
    """Tasks with their aliases, live versions and last moves, from rows of `TASK_COLUMNS`. However many they
    are, they take three statements."""
    keys = [row.id for row in rows]
    named = aliasing.current_of(connection, aliasing.TASKS, keys)
    moves = aliasing.moves_of(connection, aliasing.TASKS, [row.last_move_id for row in rows])
    live = _live_versions(connection, keys)
    return [
        TaskRecord(
            tenant=row.tenant,
            name=row.name,
            created_at=row.created_at,
            versions=row.live_versions,
            latest=row.latest,
            aliases=named.get(row.id, {}),
            description=row.description,
            live=live.get(row.id),
            last_move=moves.get(row.last_move_id),
        )
        for row in rows
    ]


def _live_versions(connection: Connection, task_ids: Sequence[int]) -> dict[int, LiveVersion]:
    """The versions that `@live` names, by the task's key."""
    at = and_(versions.c.task_id == aliases.c.owner_id, versions.c.number == aliases.c.number)
    query = (
        select(versions.c.task_id, versions.c.number, versions.c.labels, versions.c.metrics)
        .select_from(aliases.join(versions, at))
        .where(aliases.c.owner_id.in_(task_ids), aliases.c.alias == LIVE)
    )
    rows = connection.execute(query)
    return {row.task_id: LiveVersion(row.number, tuple(row.labels), row.metrics) for row in rows}


def find_task(connection: Connection, tenant: str, task: str, *, field: str = "task") -> Row[Any]:
    """The row of a live task.

    Raises:
        NotFoundError: `unknown_task`.
    """
    row = connection.execute(
        select(tasks).where(tasks.c.tenant == tenant, tasks.c.name == task, tasks.c.deleted_at.is_(None))
    ).one_or_none()
    if row is None:
        raise unknown_task(tenant, task, field=field)
    return row


def unknown_task(tenant: str, task: str, *, field: str = "task") -> NotFoundError:
    """The error for a task that does not exist, or no longer does."""
    return grants.unknown("task", tenant, task, field=field)


def open_task(
    connection: Connection, tenant: str, task: str, description: str | None, now: datetime
) -> tuple[Row[Any], bool]:
    """The task's row, and whether it is new: created now, or reopened after a tombstone.

    Raises:
        NotFoundError: `unknown_tenant`: the tenant was deleted.
    """
    standing.require_not_deleted(connection, tenant)
    found = connection.execute(
        select(tasks).where(tasks.c.tenant == tenant, tasks.c.name == task)
    ).one_or_none()
    if found is None:
        connection.execute(
            insert(tasks).values(
                tenant=tenant,
                name=task,
                description=description or "",
                created_at=now,
                last_number=0,
                live_versions=0,
            )
        )
    elif found.deleted_at is not None:
        # Numbers continue where the tombstoned task stopped, so a reference never means two things.
        connection.execute(
            update(tasks)
            .where(tasks.c.id == found.id)
            .values(deleted_at=None, deleted_by="", created_at=now, description=description or "")
        )
    elif description is not None:
        connection.execute(update(tasks).where(tasks.c.id == found.id).values(description=description))
    return find_task(connection, tenant, task), found is None or found.deleted_at is not None


def last_number(connection: Connection, owners: Table, tenant: str, name: str) -> int:
    """The highest version number that a name in `owners` (tasks or ensembles) ever had; 0 if it was never
    used."""
    query = select(owners.c.last_number).where(owners.c.tenant == tenant, owners.c.name == name)
    return int(connection.execute(query).scalar() or 0)


def refresh_labels(connection: Connection, task_id: int) -> None:
    """Make the list's filter agree with the `@live` version. Called whenever that may have changed."""
    connection.execute(delete(task_labels).where(task_labels.c.task_id == task_id))
    row = connection.execute(
        select(tasks.c.tenant, tasks.c.name, versions.c.labels)
        .join(aliases, aliases.c.owner_id == tasks.c.id)
        .join(versions, and_(versions.c.task_id == tasks.c.id, versions.c.number == aliases.c.number))
        .where(tasks.c.id == task_id, aliases.c.alias == LIVE)
    ).one_or_none()
    if row is not None and row.labels:
        connection.execute(
            insert(task_labels),
            [{"tenant": row.tenant, "label": x, "name": row.name, "task_id": task_id} for x in row.labels],
        )
