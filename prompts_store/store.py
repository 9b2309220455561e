"""The versioned store: one object, safe to call from any thread; every call is one transaction or none."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from prompts_store.blobs import Files, LocalBlobs, LocalContents, MemoryBlobs
from prompts_store.check_report import CheckReport
from prompts_store.checking import Checker
from prompts_store.collector import Collector, CollectReport
from prompts_store.database import Database
from prompts_store.errors import InvalidError
from prompts_store.store_aliases import Aliases
from prompts_store.store_base import utc_now
from prompts_store.store_claims import JobClaims
from prompts_store.store_ensembles import Ensembles
from prompts_store.store_files import DataFiles
from prompts_store.store_jobs import TuningJobs
from prompts_store.store_prompts import Prompts
from prompts_store.store_tasks import Tasks
from prompts_store.tables import tasks
from prompts_store.text import shown


class PromptStore(Prompts, Tasks, Aliases, Ensembles, DataFiles, TuningJobs, JobClaims):
    """Versioned prompts of many tenants, and the files and jobs that make them. Make one with `open`.

    What another process wrote is seen by the next call. All methods block; call them from a worker thread.
    """

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        database_url: str | None = None,
        clock: Callable[[], datetime] = utc_now,
        files: Files | None = None,
    ) -> PromptStore:
        """Open a store, making what is not there and migrating what is old.

        Args:
            data_dir: holds `chorus.db` (unless `database_url` says otherwise), `blobs/` and `files/`.
            database_url: an SQLAlchemy URL; `sqlite://` keeps the metadata in memory.
            files: the operating system's files, or a test's.

        Raises:
            InvalidError: `invalid_database_url`.
            StoreError: the folder cannot be used, or a newer Chorus made it.
        """
        blobs = LocalBlobs(data_dir / "blobs", files=files)
        contents = LocalContents(data_dir / "files", files=files)
        return cls(Database.open(data_dir, database_url), blobs, clock, contents=contents)

    @classmethod
    def in_memory(cls, *, clock: Callable[[], datetime] = utc_now) -> PromptStore:
        """A store that lives as long as the object: for tests."""
        return cls(Database.open(Path(), "sqlite://"), MemoryBlobs(), clock)

    def check_readable(self) -> None:
        """Returns when the database has been read. Raises StoreError."""
        with self._database.read() as connection:
            connection.execute(select(tasks.c.id).limit(1))

    def check_writable(self, patience_seconds: float) -> None:
        """Returns when the publish lock was free for a moment; writes nothing. Raises StoreError."""
        with self._database.write(patience_seconds):
            pass

    def close(self) -> None:
        """Close the database; the store answers nothing afterwards."""
        self._database.close()
        self._remove_temporary()

    def collect(self, *, grace_seconds: float) -> CollectReport:
        """Free what nothing has needed for longer than the grace period.

        Args:
            grace_seconds: longer than any other process reads a version that was deleted meanwhile.

        Raises:
            InvalidError: a negative or non-finite period.
            StoreError: the disk or the database failed; what was collected stays collected.
        """
        if not (math.isfinite(grace_seconds) and grace_seconds >= 0):
            raise InvalidError(
                f"The grace period is {shown(grace_seconds)} seconds; it is a number from 0.",
                field="grace_seconds",
            )
        before = self._clock() - timedelta(seconds=grace_seconds)
        return Collector(self._database, self._blobs, self._leases, self._contents, before=before).run()

    def check(self, *, repair: bool = False) -> CheckReport:
        """Compare the tables with their promises, and every blob and data file with its digest.

        Args:
            repair: put right what can be worked out anew: counts and the list's labels.
        """
        return Checker(self._database, self._blobs, self._contents, repair=repair, now=self._clock()).run()
