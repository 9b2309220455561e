"""The store's aliases: movable names for versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from prompts_store.base import StoreBase, check_owner
from prompts_store.jobs.records import Lease
from prompts_store.jobs.rows import held
from prompts_store.names import LIVE, check_alias
from prompts_store.pages import DEFAULT_LIMIT
from prompts_store.records import AliasMove, Page
from prompts_store.tasks import aliasing
from prompts_store.tasks.references import check_version
from prompts_store.tasks.rows import find_task, refresh_labels


class Aliases(StoreBase):
    """Promote, roll back, and show the history."""

    def aliases(self, tenant: str, task: str) -> dict[str, int]:
        """A task's aliases and the versions that they name. NotFoundError: `unknown_task`."""
        check_owner(tenant, task)
        with self._database.read(tenant) as connection:
            return aliasing.current(connection, aliasing.TASKS, find_task(connection, tenant, task).id)

    def rollbacks(self, tenant: str, task: str) -> dict[str, int]:
        """To which version a rollback of each alias would go; without those that have nothing to go back to.
        NotFoundError: `unknown_task`."""
        check_owner(tenant, task)
        with self._database.read(tenant) as connection:
            key = find_task(connection, tenant, task).id
            return aliasing.backs_of(connection, aliasing.TASKS, [key]).get(key, {})

    def alias_history(
        self, tenant: str, task: str, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[AliasMove]:
        """A page of the moves of a task's aliases: the newest, oldest first; the next page has older ones.

        Raises:
            InvalidError: a bad limit or cursor.
            NotFoundError: `unknown_task`.
        """
        check_owner(tenant, task)
        with self._database.read(tenant) as connection:
            key = find_task(connection, tenant, task).id
            return aliasing.history(connection, aliasing.TASKS, key, limit, cursor)

    def set_alias(
        self,
        tenant: str,
        task: str,
        alias: str,
        number: int,
        *,
        expected: int | None = None,
        moved_by: str = "",
        lease: Lease | None = None,
    ) -> AliasMove:
        """Point an alias at a version, in one instant. If it points there already, nothing is written.

        Args:
            expected: the version that it names now, 0 if there is no such alias; None for any.
            lease: lease of the job that moves it. A job that lost its lease moves nothing.

        Raises:
            NotFoundError: `unknown_task`, `unknown_version`.
            ConflictError: `alias_moved`: it names another than `expected`; `too_many_aliases`.
            LeaseLostError: another process runs the job now.
        """
        check_version(number)
        with self._changing(tenant, task, alias, moved_by) as (connection, key):
            if lease is not None:
                held(connection, lease)
            return aliasing.move(
                connection,
                aliasing.TASKS,
                key,
                alias,
                number,
                expected=expected,
                moved_by=moved_by,
                now=self._clock(),
            )

    def remove_alias(self, tenant: str, task: str, alias: str, *, moved_by: str = "") -> AliasMove:
        """Remove an alias; its history stays. NotFoundError: `unknown_task`, `unknown_alias`."""
        with self._changing(tenant, task, alias, moved_by) as (connection, key):
            return aliasing.remove(
                connection, aliasing.TASKS, key, alias, moved_by=moved_by, now=self._clock()
            )

    def rollback(
        self,
        tenant: str,
        task: str,
        alias: str = LIVE,
        *,
        version: int | None = None,
        expected: int | None = None,
        moved_by: str = "",
    ) -> AliasMove:
        """Point an alias at the version that it named before. Calling this twice goes back two steps.

        Args:
            version: where it is to go, as `rollbacks` told it; None for wherever that is now.
            expected: the version that it names now; None for any.

        Raises:
            NotFoundError: `unknown_task`, `unknown_alias`.
            ConflictError: there is nothing to go back to; `alias_moved`: it names another version than
                `expected`, or would go to another than `version`.
        """
        with self._changing(tenant, task, alias, moved_by) as (connection, key):
            return aliasing.rollback(
                connection,
                aliasing.TASKS,
                key,
                alias,
                version=version,
                expected=expected,
                moved_by=moved_by,
                now=self._clock(),
            )

    @contextmanager
    def _changing(
        self, tenant: str, task: str, alias: str, moved_by: str
    ) -> Iterator[tuple[Connection, int]]:
        """A write to one task's aliases, with the task's key. The list's labels follow `@live`."""
        check_owner(tenant, task, moved_by)
        check_alias(alias)
        with self._database.write(tenant) as connection:
            key = find_task(connection, tenant, task).id
            yield connection, key
            if alias == LIVE:
                refresh_labels(connection, key)
