"""The versioned store: one object that any thread may call. Every call is one transaction or none."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from prompts_store.audit.audit_log import AuditLog
from prompts_store.base import utc_now
from prompts_store.blobs import BlobAddress, Blobs, Contents, Files, LocalBlobs, LocalContents, MemoryBlobs
from prompts_store.blobs.folder import translated
from prompts_store.budgets.leases import BudgetLeases
from prompts_store.database import EVERY_TENANT, Database
from prompts_store.database.privacy import make_private_folder
from prompts_store.database.tables import tasks
from prompts_store.ensembles.ensembles import Ensembles
from prompts_store.errors import InvalidError, NotFoundError, StoreError
from prompts_store.files.data_files import DataFiles
from prompts_store.grants.grants import Grants
from prompts_store.jobs.claims import JobClaims
from prompts_store.jobs.job_files import JobFiles
from prompts_store.jobs.jobs import Jobs
from prompts_store.packs.packs import Packs
from prompts_store.tasks.aliases import Aliases
from prompts_store.tasks.calibrations import Calibrations
from prompts_store.tasks.prompts import Prompts
from prompts_store.tasks.tasks import Tasks
from prompts_store.tasks.versions import Versions
from prompts_store.tenants.creations import Creations
from prompts_store.tenants.feed import CHANGES_KEPT, ChangeFeed
from prompts_store.tenants.keys import Keys
from prompts_store.tenants.sessions import Sessions
from prompts_store.tenants.stored import StoredUses
from prompts_store.tenants.tenants import Tenants
from prompts_store.text import shown
from prompts_store.upkeep.backups import BackupReport, Backups
from prompts_store.upkeep.check_report import CheckReport
from prompts_store.upkeep.checking import Checker
from prompts_store.upkeep.collector import Collector, CollectPlan, CollectReport
from prompts_store.upkeep.identity import Identity, Pairing
from prompts_store.upkeep.purging import TenantPurge
from prompts_store.upkeep.turns import UpkeepTurns
from prompts_store.usage.usage import Usage

LOG = logging.getLogger("chorus.store")


class PromptStore(
    TenantPurge,
    UpkeepTurns,
    Prompts,
    Tasks,
    Versions,
    Calibrations,
    Aliases,
    Ensembles,
    Packs,
    Grants,
    DataFiles,
    Jobs,
    JobClaims,
    JobFiles,
    Tenants,
    Keys,
    StoredUses,
    Creations,
    Sessions,
    ChangeFeed,
    AuditLog,
    Usage,
    BudgetLeases,
):
    """Versioned prompts of many tenants, with the files and jobs that make them. Create one with `open`.

    The next call sees what another process has written. All methods block, so call them from a worker thread.
    """

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        database_url: str | None = None,
        blobs: BlobAddress | None = None,
        clock: Callable[[], datetime] = utc_now,
        files: Files | None = None,
        make: bool = True,
    ) -> PromptStore:
        """Open a store. Create what does not exist, and migrate what is old.

        A folder and a database that do not belong together are opened too, with a line in the log: prompts
        are served and uploaded, and nothing is collected. See `upkeep.identity`.

        Args:
            data_dir: contains `chorus.db` (unless `database_url` names another database), `blobs/` and
                `files/`.
            database_url: an SQLAlchemy URL; `sqlite://` keeps the metadata in memory.
            blobs: where blobs and data files are, if not in `data_dir`.
            files: the operating system's file calls, or a test's.
            make: whether to create a store if there is none.

        Raises:
            InvalidError: `invalid_database_url`, `invalid_blob_place`.
            NotFoundError: `no_store`: there is none, and none may be created.
            StoreError: the folder cannot be used, or a newer Chorus made it.
        """
        if not make and blobs is None and not (data_dir / "blobs").is_dir():
            raise _no_store(
                f"in {data_dir}: it has no folder blobs. Check the data folder's name", "data_dir"
            )
        with translated("prepare"):
            make_private_folder(data_dir)
        values: Blobs
        contents: Contents
        if blobs is None:
            values = LocalBlobs(data_dir / "blobs", files=files)
            contents = LocalContents(data_dir / "files", files=files)
        else:
            values, contents = blobs.open(data_dir / "copies", files)
            if not make and values.identity() is None:
                raise _no_store("at blob_url: it has no blobs/store-id. Check the name", "blob_url")
        database = Database.open(data_dir, database_url, make=make)
        store = cls(database, values, clock, contents=contents, data_dir=data_dir)
        try:
            store._begin()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def in_memory(cls, *, clock: Callable[[], datetime] = utc_now) -> PromptStore:
        """A store that lives as long as the object, for tests."""
        return cls(Database.open(Path(), "sqlite://"), MemoryBlobs(), clock)

    def check_readable(self) -> None:
        """Return once the database has been read. Raises StoreError."""
        with self._database.read(EVERY_TENANT) as connection:
            connection.execute(select(tasks.c.id).limit(1))

    def check_writable(self, patience_seconds: float) -> None:
        """Return once the publish lock was free for a moment; writes nothing. Raises StoreError."""
        with self._database.write(EVERY_TENANT, patience_seconds):
            pass

    def close(self) -> None:
        """Close the database. The store cannot be used afterwards."""
        self._database.close()
        self._place.close()

    def collect(
        self, *, grace_seconds: float, allow_mass_removal: bool = False, audit_days: int | None = None
    ) -> CollectReport:
        """Remove what nothing has needed for longer than the grace period, old rows of the change feed,
        requests that need not be remembered, months that are no longer kept of audit logs and usage, and
        budgets that nobody uses any more.

        Args:
            grace_seconds: must be longer than another process reads a version that was deleted meanwhile.
            allow_mass_removal: go on even if more than half of the blobs, or of the data files, and more than
                `collector.MASS_REMOVAL` would be removed.
            audit_days: how long the audit logs are kept whose tenant has no wish of its own; None for ever.

        Raises:
            InvalidError: the period is negative or not finite, or the days are none.
            ConflictError: `other_store`: the database and the folders have different ids; or `mass_removal`.
                Nothing was removed.
            StoreError: the disk or the database failed; what was already collected stays collected.
        """
        collector = self._collector(grace_seconds)
        self.drop_changes(self._clock() - CHANGES_KEPT)
        self.drop_creations()
        self.drop_sessions()
        self.drop_audit(audit_days)
        self.drop_usage()
        self.drop_budgets()
        self._identity.settle()
        return collector.run(allow_mass_removal=allow_mass_removal)

    def plan_collection(self, *, grace_seconds: float, allow_mass_removal: bool = False) -> CollectPlan:
        """What `collect` would remove now, and why it would refuse. Raises InvalidError and StoreError like
        `collect`."""
        return self._collector(grace_seconds).plan(allow_mass_removal=allow_mass_removal)

    def pairing(self) -> Pairing:
        """The ids of the database and its folders, and what they know of each other. Lists both whole."""
        return self._identity.pairing()

    def adopt(self) -> None:
        """Give the folders the database's id, so that the collector trusts it. An operator decides this.

        Raises:
            StoreError: the disk or the database failed; adopting again continues.
        """
        self._identity.adopt()

    def check(self, *, repair: bool = False, going_on: Callable[[], None] = lambda: None) -> CheckReport:
        """Compare the tables with their promises, and every blob and data file with its digest.

        Args:
            repair: correct what can be computed again: counts and the labels of the list.
            going_on: called before each blob and data file is read; what it raises ends the check.
        """
        checker = Checker(
            self._database,
            self._blobs,
            self._contents,
            self._identity,
            repair=repair,
            going_on=going_on,
            now=self._clock(),
        )
        return checker.run()

    def backup(self, target: BlobAddress) -> BackupReport:
        """Copy the store to a folder or a bucket, while others use it.

        Raises:
            ConflictError: `other_store`: there is a store, or the backup of another one.
            StoreError: the disk, the bucket or the database failed. An earlier backup there is still whole.
        """
        return self._backups.make(target)

    def restore(self, source: BlobAddress) -> BackupReport:
        """Fill this store, which must be empty, from a backup.

        Raises:
            NotFoundError: `no_store`: there is no backup.
            ConflictError: `store_not_empty`.
            StoreError: the disk, the bucket or the database failed. No row was written; restoring again
                continues.
        """
        return self._backups.restore(source)

    def fence_fault(self) -> str | None:
        """Why row-level security does not stand behind the store's own conditions; None if it does."""
        return self._database.fence_fault()

    @property
    def _backups(self) -> Backups:
        return Backups(self._database, self._blobs, self._contents, self._clock, self._data_dir)

    @property
    def _identity(self) -> Identity:
        return Identity(self._database, self._blobs, self._contents, self._clock)

    def _begin(self) -> None:
        """Give ids to what was just created, and log if the database and the folders do not fit, or if a
        server's row-level security does not stand."""
        if not self._database.embedded and (fault := self._database.fence_fault()):
            LOG.warning("row-level security is not up: %s; see deploy/postgresql/roles.sql", fault)
        try:
            self._identity.settle()
            with self._database.read(EVERY_TENANT) as connection:
                message = self._identity.refusal(connection)
        except StoreError as error:
            # A full disk must not keep anybody from reading; the collector checks again.
            message = error.message
        if message:
            LOG.warning("%s", message)

    def _collector(self, grace_seconds: float) -> Collector:
        if not (math.isfinite(grace_seconds) and grace_seconds >= 0):
            raise InvalidError(
                f"The grace period is {shown(grace_seconds)} seconds; it must be a number of at least 0.",
                field="grace_seconds",
            )
        now = self._clock()
        return Collector(
            self._database,
            self._blobs,
            self._leases,
            self._contents,
            self._identity,
            before=now - timedelta(seconds=grace_seconds),
            now=now,
        )


def _no_store(where: str, field: str) -> NotFoundError:
    message = f"There is no store {where}; `chorus serve` makes a store."
    return NotFoundError(message, field=field, code="no_store")
