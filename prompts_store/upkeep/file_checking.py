"""The part of the check for data files and jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import Connection, func, select, update

from prompts_store.blobs import Contents
from prompts_store.database import EVERY_TENANT, Database
from prompts_store.database.job_tables import files, job_events, jobs
from prompts_store.upkeep.check_report import Problem

_PAGE = 500


class FileChecker:
    """Checks that every live data file's content matches its row, and that the jobs' events are counted.

    Attributes:
        checked: how many different contents were checked.
    """

    def __init__(self, database: Database, contents: Contents, going_on: Callable[[], None]) -> None:
        self._database = database
        self._contents = contents
        self._going_on = going_on
        self.checked = 0

    def file_problems(self) -> Iterator[Problem]:
        """Read every content of a live file, in pieces, and compare it with its digest."""
        for digest in self._digests():
            self._going_on()
            self.checked += 1
            # Look again, because it may have been deleted and collected meanwhile.
            if self._problem(digest) and self._is_live(digest) and (problem := self._problem(digest)):
                yield problem

    def job_problems(self, connection: Connection, *, repair: bool) -> Iterator[Problem]:
        """Jobs whose count of events is behind their events, so that the next event would be refused."""
        highest = (
            select(func.coalesce(func.max(job_events.c.seq), 0))
            .where(job_events.c.job_number == jobs.c.number)
            .correlate(jobs)
            .scalar_subquery()
        )
        query = select(jobs.c.number, jobs.c.id, highest.label("highest"))
        for row in connection.execute(query.where(jobs.c.last_event < highest)).all():
            if repair:
                which = jobs.c.number == row.number
                connection.execute(update(jobs).where(which).values(last_event=row.highest))
            message = f"it has events up to {row.highest}, but its row says fewer"
            yield Problem("wrong_job", row.id, message, repaired=repair)

    def orphans(self, connection: Connection) -> int:
        """The number of contents that no file has, live or deleted."""
        named = set(connection.execute(select(files.c.sha256).distinct()).scalars())
        return sum(entry.digest not in named for entry in self._contents.entries())

    def unfinished(self) -> int:
        """The number of uploads that are under way or were interrupted."""
        return self._contents.unfinished()

    def _digests(self) -> Iterator[str]:
        last = ""
        while True:
            query = (
                select(files.c.sha256)
                .where(files.c.sha256 > last, files.c.deleted_at.is_(None))
                .distinct()
                .order_by(files.c.sha256)
                .limit(_PAGE)
            )
            with self._database.read(EVERY_TENANT) as connection:
                found = list(connection.execute(query).scalars())
            yield from found
            if len(found) < _PAGE:
                return
            last = found[-1]

    def _problem(self, digest: str) -> Problem | None:
        found = self._contents.digest_of(digest)
        if found is None:
            return Problem("missing_file", digest, "live data files need it, and it is missing")
        if found != digest:
            return Problem("corrupt_file", digest, "its bytes do not match its digest")
        return None

    def _is_live(self, digest: str) -> bool:
        query = select(files.c.number).where(files.c.sha256 == digest, files.c.deleted_at.is_(None)).limit(1)
        with self._database.read(EVERY_TENANT) as connection:
            return connection.execute(query).scalar() is not None
