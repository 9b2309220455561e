"""The store's fsck: checks that the tables keep their promises, and that every blob has the content that its
name says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select, update

from prompts_store.audit import chain
from prompts_store.audit.audit_log import verify_log
from prompts_store.audit.records import OF_THE_STORE
from prompts_store.blobs import Blobs, Contents
from prompts_store.blobs.format import decode
from prompts_store.database import EVERY_TENANT, Database, sqlite
from prompts_store.database.audit_tables import audit, audit_heads
from prompts_store.database.tables import (
    aliases,
    ensemble_aliases,
    ensemble_versions,
    ensembles,
    pack_aliases,
    pack_versions,
    packs,
    task_labels,
    tasks,
    versions,
)
from prompts_store.database.tables import blobs as blob_table
from prompts_store.digests import manifest_digest, prompt_digest
from prompts_store.errors import CorruptError
from prompts_store.grants.rows import dangling, revoke_all
from prompts_store.names import LIVE
from prompts_store.tasks import counts
from prompts_store.tasks.rows import refresh_labels, select_versions, version_record
from prompts_store.upkeep.check_report import CheckReport, Problem
from prompts_store.upkeep.file_checking import FileChecker
from prompts_store.upkeep.identity import Identity, database_id
from prompts_store.upkeep.tenant_checking import tenant_problems

_PAGE = 500
# How many versions a finding names.
_SHOWN = 4


class Checker:
    """One check. By default it changes nothing."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        contents: Contents,
        identity: Identity,
        *,
        repair: bool,
        going_on: Callable[[], None],
        now: datetime,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._identity = identity
        self._files = FileChecker(database, contents, going_on)
        self._repair = repair
        self._going_on = going_on
        self._now = now
        self._problems: list[Problem] = []
        self._rows = 0

    def run(self) -> CheckReport:
        """Check everything. Writers wait only for repairs, not for reads."""
        with self._database.read(EVERY_TENANT) as connection:
            self._check_identity(connection)
            if self._database.embedded:
                for message in sqlite.integrity_problems(connection):
                    self._add("database", "chorus.db", message)
        self._check_audit()
        number = self._check_versions()
        self._check_blobs()
        self._problems.extend(self._files.file_problems())
        with self._database.read(EVERY_TENANT) as connection:
            found = self._row_problems(connection, repair=False)
            orphans = self._orphans(connection) + self._files.orphans(connection)
        if found and self._repair:
            # Look again under the publish lock: it may have been corrected since, or more may be wrong.
            with self._database.write(EVERY_TENANT) as connection:
                found = self._row_problems(connection, repair=True)
                if repaired := Counter(problem.kind for problem in found if problem.repaired):
                    chain.append(connection, "store.repair", OF_THE_STORE, now=self._now, after=repaired)
        self._problems.extend(found)
        temporary = self._blobs.unfinished() + self._files.unfinished()
        problems = tuple(self._problems)
        return CheckReport(number, self._rows, orphans, temporary, problems, self._files.checked)

    def _check_versions(self) -> int:
        total = last = 0
        while True:
            query = (
                select_versions()
                .where(versions.c.id > last, versions.c.deleted_at.is_(None))
                .order_by(versions.c.id)
                .limit(_PAGE)
            )
            with self._database.read(EVERY_TENANT) as connection:
                rows = connection.execute(query).all()
            for row in rows:
                version = version_record(row)
                if manifest_digest(version.manifest) != version.manifest_digest:
                    where = f"{version.tenant}/{version.task}@{version.number}"
                    self._add("wrong_manifest", where, "its manifest does not match its digest")
            total += len(rows)
            if len(rows) < _PAGE:
                return total
            last = rows[-1].id

    def _check_blobs(self) -> None:
        for row in self._blob_rows():
            self._going_on()
            self._rows += 1
            if row.reference_count and self._blob_problem(row.digest):
                # Look again under the publish lock: it may have been deleted and collected meanwhile.
                with self._database.write(EVERY_TENANT) as connection:
                    query = select(blob_table.c.reference_count).where(blob_table.c.digest == row.digest)
                    problem = connection.execute(query).scalar() and self._blob_problem(row.digest)
                    who = _named_by(connection, row.digest)
                if problem:
                    kind, message = problem
                    self._add(kind, row.digest, f"{message}; {who}")

    def _blob_rows(self) -> Iterator[Row[Any]]:
        last = ""
        while True:
            query = (
                select(blob_table)
                .where(blob_table.c.digest > last)
                .order_by(blob_table.c.digest)
                .limit(_PAGE)
            )
            with self._database.read(EVERY_TENANT) as connection:
                rows = connection.execute(query).all()
            yield from rows
            if len(rows) < _PAGE:
                return
            last = rows[-1].digest

    def _blob_problem(self, digest: str) -> tuple[str, str] | None:
        content = self._blobs.get(digest, fresh=True)
        if content is None:
            return "missing_blob", "it is missing"
        try:
            if prompt_digest(decode(content, digest=digest)) != digest:
                return "corrupt_blob", "its values do not match its digest"
        except CorruptError as error:
            return "corrupt_blob", error.message.rstrip(".")
        return None

    def _check_identity(self, connection: Connection) -> None:
        # A database without an id of its own was never opened as a store.
        if database_id(connection) and (message := self._identity.mismatch(connection)):
            self._add("other_store", "the database and its folders", message)

    def _check_audit(self) -> None:
        with self._database.read(EVERY_TENANT) as connection:
            # Of the rows too: a log may have lost its head.
            logs = select(audit_heads.c.tenant).union(select(audit.c.tenant).distinct())
            names = sorted(connection.execute(logs).scalars())
        for name in names:
            with self._database.read(EVERY_TENANT) as connection:
                report = verify_log(connection, name)
            for problem in report.problems:
                self._add("audit_log", name or "the store", f"{problem.kind}: {problem.message}")

    def _row_problems(self, connection: Connection, *, repair: bool) -> list[Problem]:
        return [
            *self._count_problems(connection, repair),
            *self._alias_problems(connection),
            *self._task_problems(connection, repair),
            *self._label_problems(connection, repair),
            *self._grant_problems(connection, repair),
            *self._files.job_problems(connection, repair=repair),
            *tenant_problems(connection, repair=repair, now=self._now),
        ]

    def _count_problems(self, connection: Connection, repair: bool) -> Iterator[Problem]:
        uses = (
            select(func.count())
            .select_from(versions)
            .where(versions.c.blob_digest == blob_table.c.digest)
            .correlate(blob_table)
            .scalar_subquery()
        )
        query = select(blob_table.c.digest, blob_table.c.reference_count, uses.label("uses"))
        for row in connection.execute(query.where(blob_table.c.reference_count != uses)).all():
            if repair:
                counts.recount(connection, row.digest, self._now)
            message = f"its count is {row.reference_count}, but {row.uses} live versions name it"
            yield Problem("wrong_count", row.digest, message, repaired=repair)

    def _alias_problems(self, connection: Connection) -> Iterator[Problem]:
        for table, owners, family, owner in (
            (aliases, tasks, versions, versions.c.task_id),
            (ensemble_aliases, ensembles, ensemble_versions, ensemble_versions.c.ensemble_id),
            (pack_aliases, packs, pack_versions, pack_versions.c.pack_id),
        ):
            query = (
                select(table, owners.c.tenant, owners.c.name)
                .join(owners, owners.c.id == table.c.owner_id)
                .join(family, and_(owner == table.c.owner_id, family.c.number == table.c.number))
                .where(family.c.deleted_at.is_not(None))
            )
            for row in connection.execute(query):
                where = f"{row.tenant}/{row.name}@{row.alias}"
                yield Problem("dangling_alias", where, f"it names version {row.number}, which was deleted")

    def _task_problems(self, connection: Connection, repair: bool) -> Iterator[Problem]:
        live = (
            select(func.count())
            .select_from(versions)
            .where(versions.c.task_id == tasks.c.id, versions.c.deleted_at.is_(None))
            .correlate(tasks)
            .scalar_subquery()
        )
        highest = (
            select(func.coalesce(func.max(versions.c.number), 0))
            .where(versions.c.task_id == tasks.c.id)
            .correlate(tasks)
            .scalar_subquery()
        )
        wrong = or_(tasks.c.live_versions != live, tasks.c.last_number < highest)
        for row in connection.execute(
            select(tasks, live.label("live"), highest.label("highest")).where(wrong)
        ).all():
            if repair:
                fixed = {"live_versions": row.live, "last_number": max(row.last_number, row.highest)}
                connection.execute(update(tasks).where(tasks.c.id == row.id).values(**fixed))
            message = f"it has {row.live} live versions up to {row.highest}, but its row says otherwise"
            yield Problem("wrong_task", f"{row.tenant}/{row.name}", message, repaired=repair)

    def _label_problems(self, connection: Connection, repair: bool) -> Iterator[Problem]:
        kept: dict[int, set[str]] = {}
        for row in connection.execute(select(task_labels)):
            kept.setdefault(row.task_id, set()).add(row.label)
        query = (
            select(tasks.c.id, tasks.c.tenant, tasks.c.name, versions.c.labels)
            .outerjoin(aliases, and_(aliases.c.owner_id == tasks.c.id, aliases.c.alias == LIVE))
            .outerjoin(
                versions, and_(versions.c.task_id == tasks.c.id, versions.c.number == aliases.c.number)
            )
        )
        for row in connection.execute(query).all():
            if kept.get(row.id, set()) != set(row.labels or ()):
                if repair:
                    refresh_labels(connection, row.id)
                where = f"{row.tenant}/{row.name}"
                yield Problem("wrong_labels", where, "the list finds it by other labels", repaired=repair)

    def _grant_problems(self, connection: Connection, repair: bool) -> Iterator[Problem]:
        for kind, tenant, name in dangling(connection):
            if repair:
                revoke_all(connection, kind, tenant, name, now=self._now)
            message = f"it is shared, but there is no such {kind}"
            yield Problem("dangling_grant", f"{tenant}/{name}", message, repaired=repair)

    def _orphans(self, connection: Connection) -> int:
        named = set(connection.execute(select(blob_table.c.digest)).scalars())
        return sum(entry.digest not in named for entry in self._blobs.entries())

    def _add(self, kind: str, where: str, message: str) -> None:
        self._problems.append(Problem(kind, where, message))


def _named_by(connection: Connection, digest: str) -> str:
    """The live versions that name a blob, in words."""
    query = (
        select(tasks.c.tenant, tasks.c.name, versions.c.number)
        .join(tasks, tasks.c.id == versions.c.task_id)
        .where(versions.c.blob_digest == digest)
        .order_by(versions.c.id)
    )
    names = [f"{row.tenant}/{row.name}@{row.number}" for row in connection.execute(query.limit(_SHOWN + 1))]
    return f"named by {', '.join(names[:_SHOWN])}{' and others' if len(names) > _SHOWN else ''}"
