"""The store's tasks and versions: show, list, tombstone."""

from __future__ import annotations

from prompts_store import checks, tasks, versions
from prompts_store.database.tables import tasks as task_table
from prompts_store.database.tables import versions as version_table
from prompts_store.names import check_name
from prompts_store.pages import DEFAULT_LIMIT
from prompts_store.records import Page, PromptVersion, Reference, TaskRecord
from prompts_store.references import check_version
from prompts_store.rows import version_record
from prompts_store.store_base import StoreBase, check_owner


class Tasks(StoreBase):
    """Tasks and their versions."""

    def get_task(self, tenant: str, task: str) -> TaskRecord:
        """A task. NotFoundError: `unknown_task`."""
        check_owner(tenant, task)
        with self._database.read() as connection:
            return tasks.get_task(connection, tenant, task)

    def last_number(self, tenant: str, task: str) -> int:
        """The highest number that a task ever gave, also a deleted one; 0 for a name never used."""
        check_owner(tenant, task)
        with self._database.read() as connection:
            return tasks.last_number(connection, task_table, tenant, task)

    def list_tasks(
        self,
        tenant: str,
        *,
        prefix: str = "",
        label: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[TaskRecord]:
        """A page of a tenant's tasks by name; `label` keeps those whose `@live` version has that label.

        Raises:
            InvalidError: a bad name, prefix, limit or cursor.
        """
        check_name(tenant, field="tenant")
        if label is not None:
            checks.check_text(label, field="label")
        with self._database.read() as connection:
            return tasks.list_tasks(
                connection, tenant, prefix=prefix, label=label, limit=limit, cursor=cursor
            )

    def delete_task(self, tenant: str, task: str, *, deleted_by: str = "") -> None:
        """Tombstone a task with its versions and aliases. Published again, its numbers go on.

        Raises:
            NotFoundError: `unknown_task`.
            ConflictError: a live ensemble has a version of it as a member.
        """
        check_owner(tenant, task, deleted_by)

        with self._database.write() as connection:
            row = tasks.find_task(connection, tenant, task)
            which = version_table.c.task_id == row.id
            versions.require_no_ensemble(connection, tenant, which, "A version of the task", field="task")
            tasks.delete_task(connection, row, deleted_by=deleted_by, now=self._clock())

    def get_version(self, tenant: str, task: str, number: int) -> PromptVersion:
        """A live version. NotFoundError: `unknown_task`, `unknown_version`."""
        check_owner(tenant, task)
        reference = Reference(tenant, task, version=check_version(number), alias=None)
        with self._database.read() as connection:
            return version_record(versions.resolve(connection, reference, field="version"))

    def list_versions(
        self, tenant: str, task: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[PromptVersion]:
        """A page of a task's live versions, newest first. NotFoundError: `unknown_task`; InvalidError."""
        check_owner(tenant, task)
        with self._database.read() as connection:
            return versions.list_versions(connection, tenant, task, limit=limit, cursor=cursor)

    def delete_version(self, tenant: str, task: str, number: int, *, deleted_by: str = "") -> None:
        """Tombstone a version: gone from lists and references at once, its values when nobody reads them.

        Raises:
            NotFoundError: `unknown_task`, `unknown_version`.
            ConflictError: an alias or a live ensemble names it.
        """
        check_owner(tenant, task, deleted_by)
        number = check_version(number)

        with self._database.write() as connection:
            versions.delete_version(
                connection, tenant, task, number, deleted_by=deleted_by, now=self._clock()
            )
