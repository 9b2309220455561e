"""The store's tasks: show, list, tombstone."""

from __future__ import annotations

from sqlalchemy import BigInteger, and_, cast, func, select, update

from prompts_store import checks
from prompts_store.audit import chain
from prompts_store.base import StoreBase, check_owner
from prompts_store.database.tables import task_labels, tasks, versions
from prompts_store.errors import ConflictError
from prompts_store.grants import rows as grants
from prompts_store.names import AFTER_NAMES, check_name, check_prefix
from prompts_store.pages import DEFAULT_LIMIT, check_limit, decode_cursor, encode_cursor, make_page
from prompts_store.records import Page, TaskRecord
from prompts_store.tasks import aliasing, counts
from prompts_store.tasks.rows import (
    TASK_COLUMNS,
    find_task,
    last_number,
    refresh_labels,
    task_records,
    unknown_task,
)
from prompts_store.tasks.versions import require_unused
from prompts_store.tenants import feed, stored

_CURSOR = "tasks"
# Greater than every character of a name.


class Tasks(StoreBase):
    """Tasks: names in a tenant's namespace."""

    def get_task(self, tenant: str, task: str) -> TaskRecord:
        """A task. NotFoundError: `unknown_task`."""
        check_owner(tenant, task)
        with self._database.read(tenant) as connection:
            row = connection.execute(
                select(*TASK_COLUMNS).where(
                    tasks.c.tenant == tenant, tasks.c.name == task, tasks.c.deleted_at.is_(None)
                )
            ).one_or_none()
            if row is None:
                raise unknown_task(tenant, task)
            return task_records(connection, [row])[0]

    def last_number(self, tenant: str, task: str) -> int:
        """The highest version number that a task ever had, even if it was deleted; 0 if the name was never
        used."""
        check_owner(tenant, task)
        with self._database.read(tenant) as connection:
            return last_number(connection, tasks, tenant, task)

    def list_tasks(
        self,
        tenant: str,
        *,
        prefix: str = "",
        label: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[TaskRecord]:
        """A page of a tenant's tasks, by name. With `label`, only tasks whose `@live` version has that label.

        Raises:
            InvalidError: the name, prefix, limit or cursor is not valid.
        """
        check_name(tenant, field="tenant")
        if label is not None:
            checks.check_text(label, field="label")
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
            query = query.where(name >= prefix, name < prefix + AFTER_NAMES)
        if after is not None:
            query = query.where(name > after)
        with self._database.read(tenant) as connection:
            rows = connection.execute(query).all()
            by_name = {record.name: record for record in task_records(connection, rows[:limit])}
        return make_page(
            rows, limit, lambda row: by_name[row.name], lambda row: encode_cursor(_CURSOR, row.name)
        )

    def delete_task(
        self, tenant: str, task: str, *, only_version: int | None = None, deleted_by: str = ""
    ) -> None:
        """Tombstone a task with its versions and aliases. If it is published again, its numbers continue.

        Args:
            only_version: refuse if the task has any version but this one.

        Raises:
            NotFoundError: `unknown_task`.
            ConflictError: a live ensemble or pack of the tenant has one of its versions; there are others.
        """
        check_owner(tenant, task, deleted_by)

        with self._database.write(tenant) as connection:
            row = find_task(connection, tenant, task)
            which = versions.c.task_id == row.id
            alive = and_(which, versions.c.deleted_at.is_(None))
            if only_version is not None:
                numbers = connection.execute(select(versions.c.number).where(alive).limit(2)).scalars()
                if list(numbers) != [only_version]:
                    raise ConflictError(f"Version {only_version} is not the only one.", field="task")
            require_unused(connection, tenant, which, "A version of the task", field="task")
            now = self._clock()
            for alias in aliasing.current(connection, aliasing.TASKS, row.id):
                aliasing.remove(connection, aliasing.TASKS, row.id, alias, moved_by=deleted_by, now=now)
            refresh_labels(connection, row.id)
            values = func.sum(cast(versions.c.length, BigInteger) * versions.c.width)
            number, size = connection.execute(select(func.count(), values).where(alive)).one()
            kept = {"prompts": -number, "prompt_bytes": -stored.VALUE_BYTES * int(size or 0)}
            stored.add(connection, tenant, **kept)
            counts.release_all(connection, alive, now)
            connection.execute(
                update(versions).where(alive).values(deleted_at=now, deleted_by=deleted_by, blob_digest=None)
            )
            connection.execute(
                update(tasks)
                .where(tasks.c.id == row.id)
                .values(deleted_at=now, deleted_by=deleted_by, live_versions=0, description="")
            )
            grants.revoke_all(connection, "task", tenant, task, now=now)
            feed.record(connection, "task_deleted", tenant, task, now=now)
            before = {"versions": row.live_versions}
            chain.append(connection, "task.delete", tenant, task, now=now, before=before)
