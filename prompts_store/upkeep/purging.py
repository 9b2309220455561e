"""Takes away what deleted tenants had, once their grace period is over.

By the operations that everybody uses, one transaction each, and then row by row: whatever a purge had
done when it was cut off stays done, and the next one goes on. Nothing new can be made in a deleted tenant, so
it comes to an end. What is left is the tenant's name, by which nobody else is ever called, and its audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, exists, select, update

from prompts_store.audit import chain
from prompts_store.budgets.leases import BudgetLeases
from prompts_store.database import EVERY_TENANT
from prompts_store.database.job_tables import files, jobs
from prompts_store.database.tables import ensembles, packs, tasks
from prompts_store.database.tenant_tables import tenants
from prompts_store.ensembles.ensembles import Ensembles
from prompts_store.errors import ConflictError, NotFoundError
from prompts_store.files.data_files import DataFiles
from prompts_store.grants import rows as grants
from prompts_store.jobs.jobs import Jobs
from prompts_store.jobs.records import KINDS, UNFINISHED
from prompts_store.packs.packs import Packs
from prompts_store.pages import MAX_LIMIT
from prompts_store.records import Page
from prompts_store.tasks.tasks import Tasks
from prompts_store.tenants import feed
from prompts_store.upkeep.erasing import erase
from prompts_store.usage.usage import Usage

_GRANTS_AT_ONCE = 50


@dataclass(slots=True)
class PurgeReport:
    """What a purge did.

    Attributes:
        jobs: that were cancelled, or told to stop.
        purged: tenants of which nothing is left.
        waiting: tenants that have something left which somebody needs: a job that is still being run, a file
            of such a job. Purge again later.
        usage: rows of it, dropped with the sums of their hours.
        grants: that others had given to it; those of its own go with what they are of.
    """

    jobs: int = 0
    ensembles: int = 0
    packs: int = 0
    tasks: int = 0
    files: int = 0
    purged: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    usage: int = 0
    grants: int = 0


class TenantPurge(Tasks, Ensembles, Packs, DataFiles, Jobs, Usage, BudgetLeases):
    """The end of deleted tenants."""

    def purge_tenants(self) -> PurgeReport:
        """Delete the ensembles, packs, tasks and files, cancel the jobs, drop the usage and end the grants of
        tenants whose grace period is over.

        They go as if their tenant had deleted them. Once all are gone, so do their tombstones and the keys,
        and with the next collection what nothing names any more.

        Raises:
            StoreError: the database failed; purging again goes on.
        """
        due = select(tenants.c.name).where(tenants.c.purge_after <= self._clock()).order_by(tenants.c.name)
        with self._database.read(EVERY_TENANT) as connection:
            names = connection.execute(due).scalars().all()
        report = PurgeReport()
        for name in names:
            self._purge(name, report)
        return report

    def _purge(self, tenant: str, report: PurgeReport) -> None:
        # Versions after the ensembles and packs that need them, files after the jobs.
        for kind in KINDS:
            for status in UNFINISHED:
                for job in _all(partial(self.list_jobs, tenant, kind, status=status)):
                    report.jobs += _done(partial(self.cancel_job, tenant, job.id))
        for ensemble in _all(partial(self.list_ensembles, tenant)):
            report.ensembles += _done(partial(self.delete_ensemble, tenant, ensemble.name))
        for pack in _all(partial(self.list_packs, tenant)):
            report.packs += _done(partial(self.delete_pack, tenant, pack.name))
        for task in _all(partial(self.list_tasks, tenant)):
            report.tasks += _done(partial(self.delete_task, tenant, task.name))
        for file in _all(partial(self.list_files, tenant)):
            report.files += _done(partial(self.delete_file, tenant, file.id))
        report.usage += self.drop_usage_of(tenant)
        report.grants += self._revoke_grants_to(tenant)
        self.drop_budgets_of(tenant)
        with self._database.read(tenant) as connection:
            over = not _has_anything(connection, tenant)
        if over:
            erase(self._database, tenant)
            self._end(tenant)
        (report.purged if over else report.waiting).append(tenant)

    def was_purged(self, tenant: str) -> bool:
        """Whether there was a tenant of that name, and nothing of it is left."""
        query = select(tenants.c.name).where(
            tenants.c.name == tenant, tenants.c.status == "deleted", tenants.c.purge_after.is_(None)
        )
        with self._database.read(tenant) as connection:
            return connection.execute(query).first() is not None

    def _end(self, tenant: str) -> None:
        emptied = update(tenants).where(tenants.c.name == tenant, tenants.c.purge_after.is_not(None))
        with self._database.write(tenant) as connection:
            nothing: dict[str, Any] = {"purge_after": None, "display_name": "", "limits": {}}
            if connection.execute(emptied.values(**nothing)).rowcount:
                now = self._clock()
                feed.record(connection, "tenant_purged", tenant, now=now)
                chain.append(connection, "tenant.purge", tenant, now=now)

    def _revoke_grants_to(self, tenant: str) -> int:
        """End what others granted to a tenant that is no more, few at a time; answers with how many."""
        revoked = 0
        while True:
            with self._database.write(EVERY_TENANT) as connection:
                some = grants.revoke_to(connection, tenant, limit=_GRANTS_AT_ONCE, now=self._clock())
            revoked += some
            if some < _GRANTS_AT_ONCE:
                return revoked


def _all(page: Callable[..., Page[Any]]) -> Iterator[Any]:
    """Every item of a list, whatever happens to those that were given before."""
    cursor: str | None = None
    while True:
        found = page(limit=MAX_LIMIT, cursor=cursor)
        yield from found.items
        cursor = found.next_cursor
        if cursor is None:
            return


def _done(delete: Callable[[], object]) -> bool:
    """Whether it could be done; not if somebody needs it, or was faster."""
    with suppress(ConflictError, NotFoundError):
        delete()
        return True
    return False


def _has_anything(connection: Connection, tenant: str) -> bool:
    left = [
        exists().where(tasks.c.tenant == tenant, tasks.c.deleted_at.is_(None)),
        exists().where(ensembles.c.tenant == tenant, ensembles.c.deleted_at.is_(None)),
        exists().where(packs.c.tenant == tenant, packs.c.deleted_at.is_(None)),
        exists().where(files.c.tenant == tenant, files.c.deleted_at.is_(None)),
        exists().where(jobs.c.tenant == tenant, jobs.c.finished_at.is_(None)),
    ]
    return any(connection.execute(select(one)).scalar() for one in left)
