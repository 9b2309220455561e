"""Tasks: names in a tenant's namespace."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, delete, insert, select, update

from prompts_store import aliasing, counts
from prompts_store.database.tables import aliases, task_labels, tasks, versions
from prompts_store.errors import NotFoundError
from prompts_store.names import LIVE, check_name, check_prefix
from prompts_store.pages import check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import Page, TaskRecord
from prompts_store.rows import TASK_COLUMNS, task_record

_CURSOR = "tasks"
# Greater than every character of a name.
_AFTER_NAMES = "\x7f"


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
    """The error for a task that is not there, or no longer."""
    return NotFoundError(f"There is no task {tenant}/{task}.", field=field, code="unknown_task")


def open_task(
    connection: Connection, tenant: str, task: str, description: str | None, now: datetime
) -> tuple[Row[Any], bool]:
    """The task's row and whether it is new: made now, or taken up again after a tombstone."""
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
        # The number goes on where the tombstoned task stopped: a reference never means two things.
        connection.execute(
            update(tasks)
            .where(tasks.c.id == found.id)
            .values(deleted_at=None, deleted_by="", created_at=now, description=description or "")
        )
    elif description is not None:
        connection.execute(update(tasks).where(tasks.c.id == found.id).values(description=description))
    return find_task(connection, tenant, task), found is None or found.deleted_at is not None


def get_task(connection: Connection, tenant: str, task: str) -> TaskRecord:
    """A task with its aliases.

    Raises:
        NotFoundError: `unknown_task`.
    """
    row = connection.execute(
        select(*TASK_COLUMNS).where(
            tasks.c.tenant == tenant, tasks.c.name == task, tasks.c.deleted_at.is_(None)
        )
    ).one_or_none()
    if row is None:
        raise unknown_task(tenant, task)
    return _records(connection, [row])[0]


def last_number(connection: Connection, owners: Table, tenant: str, name: str) -> int:
    """The highest number that a name in `owners` (tasks or ensembles) ever gave; 0 if it was never used."""
    query = select(owners.c.last_number).where(owners.c.tenant == tenant, owners.c.name == name)
    return int(connection.execute(query).scalar() or 0)


def list_tasks(
    connection: Connection, tenant: str, *, prefix: str, label: str | None, limit: int, cursor: str | None
) -> Page[TaskRecord]:
    """A page of a tenant's tasks by name.

    Args:
        prefix: only names that begin so.
        label: only tasks whose `@live` version has this label.

    Raises:
        InvalidError: a bad prefix, limit or cursor.
    """
    limit, prefix = check_limit(limit), check_prefix(prefix)
    after = decode_cursor(_CURSOR, cursor, lambda key: check_name(key, field="cursor"))
    # The name comes from the narrower table, so that one index gives the page in order.
    name = tasks.c.name if label is None else task_labels.c.name
    query = select(*TASK_COLUMNS).where(tasks.c.deleted_at.is_(None)).order_by(name).limit(limit + 1)
    if label is None:
        query = query.where(tasks.c.tenant == tenant)
    else:
        query = query.join(task_labels, task_labels.c.task_id == tasks.c.id).where(
            task_labels.c.tenant == tenant, task_labels.c.label == label
        )
    if prefix:
        query = query.where(name >= prefix, name < prefix + _AFTER_NAMES)
    if after is not None:
        query = query.where(name > after)
    rows = connection.execute(query).all()
    records = _records(connection, rows[:limit])
    by_name = {record.name: record for record in records}
    return make_page(rows, limit, lambda row: by_name[row.name], lambda row: encode_cursor(_CURSOR, row.name))


def delete_task(connection: Connection, row: Row[Any], *, deleted_by: str, now: datetime) -> None:
    """Tombstone a task with its versions and aliases; the caller has seen that no ensemble needs them."""
    for alias in aliasing.current(connection, aliasing.TASKS, row.id):
        aliasing.remove(connection, aliasing.TASKS, row.id, alias, moved_by=deleted_by, now=now)
    refresh_labels(connection, row.id)
    alive = and_(versions.c.task_id == row.id, versions.c.deleted_at.is_(None))
    counts.release_all(connection, alive, now)
    connection.execute(
        update(versions).where(alive).values(deleted_at=now, deleted_by=deleted_by, blob_digest=None)
    )
    connection.execute(
        update(tasks)
        .where(tasks.c.id == row.id)
        .values(deleted_at=now, deleted_by=deleted_by, live_versions=0, description="")
    )


def refresh_labels(connection: Connection, task_id: int) -> None:
    """Make the list's filter say what the `@live` version says; called when that may have changed."""
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


def _records(connection: Connection, rows: Sequence[Row[Any]]) -> list[TaskRecord]:
    found = aliasing.current_of(connection, aliasing.TASKS, [row.id for row in rows])
    return [task_record(row, found.get(row.id, {})) for row in rows]
