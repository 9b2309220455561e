"""Backups: a copy of the rows, as they were at one moment, and of the blobs and data files that they name.

    TARGET/blobs/..., TARGET/files/...    as in a data folder; what is there already is not copied again
    TARGET/backup.db                      an SQLite database with all rows; written last, in one step

Whatever the store's database is, a backup's is SQLite, so it restores into either. Backups are made while
servers run: first what the rows name now is copied, then the rows are read in one snapshot, then what they
name and is still missing is copied. Between these two only the collector could remove something, and it waits
for its grace period first. See decision 0022.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Table, delete, func, insert, select, text

from prompts_store.audit import chain
from prompts_store.audit.records import OF_THE_STORE
from prompts_store.blobs import BlobAddress, Blobs, Contents
from prompts_store.blobs.files import Files
from prompts_store.blobs.folder import translated
from prompts_store.blobs.format import decode
from prompts_store.database import (
    EVERY_TENANT,
    Database,
    audit_tables,  # noqa: F401 - their tables join the metadata
    budget_tables,  # noqa: F401
    job_tables,
    tenant_tables,
    usage_tables,
)
from prompts_store.database.tables import blobs as blob_table
from prompts_store.database.tables import metadata, store_identity
from prompts_store.digests import prompt_digest
from prompts_store.errors import ConflictError, CorruptError, NotFoundError
from prompts_store.upkeep.identity import database_id

ROWS_FILE = "backup.db"

SCRATCH = "backups"
"""Folder below the data folder for what is on its way."""

_FILES = Files()
_LEFT_SECONDS = 86_400
_ROWS = 1000


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What was copied.

    Attributes:
        rows: of all tables.
        blobs: values of prompts that were copied; those that were there already do not count.
        files: contents of data files that were copied.
        damaged: digests of what live rows name and is missing or is not what it should be. It was left out.
    """

    rows: int
    blobs: int
    files: int
    damaged: tuple[str, ...]


class Backups:
    """Copies a store out and in.

    Args:
        clock: gives the current time.
        data_dir: of this machine, whose disk has room for what is on its way; None is where the system has
            temporary files.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        contents: Contents,
        clock: Callable[[], datetime],
        data_dir: Path | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._contents = contents
        self._clock = clock
        self._data_dir = data_dir

    def make(self, target: BlobAddress) -> BackupReport:
        """Copy the store to a folder or a bucket.

        Raises:
            ConflictError: `other_store`: there is a store, or the backup of another one. Or the tables are a
                newer Chorus's.
            StoreError: the disk, the bucket or the database failed. An earlier backup there is still whole.
        """
        _require_known(self._database)
        with self._scratch() as scratch:
            blobs, contents = _opened(target, scratch)
            self._check_target(target, blobs, contents, scratch)
            copying = _Copying(self._blobs, self._contents, blobs, contents, self._clock)
            with self._database.read(EVERY_TENANT) as connection:
                named = _named(connection)
            copying.copy(named)
            database = Database.open(scratch, None)
            try:
                with database.write(EVERY_TENANT) as there, self._database.read(EVERY_TENANT) as here:
                    there.execute(delete(store_identity))
                    rows = _copy_rows(here, there, [store_identity, *_kept_tables()])
                    named = _named(there)
            finally:
                database.close()
            copying.copy(named)
            target.put_file(ROWS_FILE, scratch / "chorus.db", now=self._clock())
        return copying.report(rows)

    def restore(self, source: BlobAddress) -> BackupReport:
        """Fill this store, which must be empty, from a backup. It keeps its own id.

        Raises:
            NotFoundError: `no_store`: there is no backup.
            CorruptError: `corrupt_file`: its rows are damaged.
            ConflictError: `store_not_empty`. Or the tables are a newer Chorus's, here or there.
            StoreError: the disk, the bucket or the database failed. No row was written; restoring again
                continues.
        """
        _require_known(self._database)
        with self._scratch() as scratch:
            blobs, contents = _opened(source, scratch)
            if not source.get_file(ROWS_FILE, scratch / "chorus.db"):
                raise NotFoundError(
                    f"There is no backup: {ROWS_FILE} is missing. Check the name.", code="no_store"
                )
            _require_whole(scratch / "chorus.db", source, "use an earlier backup")
            # It may be an older Chorus's: this copy is migrated.
            database = Database.open(scratch, None, make=False)
            try:
                _require_known(database)
                with self._database.read(EVERY_TENANT) as connection:
                    _require_empty(connection)
                copying = _Copying(blobs, contents, self._blobs, self._contents, self._clock)
                with database.read(EVERY_TENANT) as there:
                    copying.copy(_named(there))
                    with self._database.write(EVERY_TENANT) as here:
                        _require_empty(here)
                        rows = _copy_rows(there, here, _kept_tables())
                        _go_on_counting(here)
                        facts = {"from": database_id(there), "rows": rows}
                        chain.append(here, "store.restore", OF_THE_STORE, now=self._clock(), after=facts)
            finally:
                database.close()
        return copying.report(rows)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder for what is on its way, held for as long as it is. What a killed process left goes after a
        day."""
        parent = self._data_dir and self._data_dir / SCRATCH
        with translated("write to"):
            if parent is not None:
                parent.mkdir(mode=0o700, exist_ok=True)
                _sweep(parent)
            made = tempfile.TemporaryDirectory(prefix="chorus-backup-", dir=parent)
        with made as name:
            held = _FILES.hold(Path(name))
            try:
                yield Path(name)
            finally:
                if held is not None:
                    _FILES.close(held)

    def _check_target(self, target: BlobAddress, blobs: Blobs, contents: Contents, scratch: Path) -> None:
        if blobs.identity() is not None or contents.identity() is not None:
            raise ConflictError("That is the place of a store, not of a backup.", code="other_store")
        earlier = scratch / "earlier"
        earlier.mkdir()
        if not target.get_file(ROWS_FILE, earlier / "chorus.db"):
            return
        advice = "if nothing needs it, remove that file, and back up again; or choose another place"
        _require_whole(earlier / "chorus.db", target, advice)
        database = Database.open(earlier, None, make=False)
        try:
            with database.read(EVERY_TENANT) as there, self._database.read(EVERY_TENANT) as here:
                if database_id(there) != database_id(here):
                    message = "That is the backup of another store; choose another place."
                    raise ConflictError(message, code="other_store")
        finally:
            database.close()


def _sweep(parent: Path) -> None:
    """Remove old folders that nobody holds; other processes may do so at the same time."""
    until = time.time() - _LEFT_SECONDS
    for left in parent.iterdir():
        with suppress(OSError):
            if left.stat().st_mtime < until and not _FILES.is_locked(left):
                shutil.rmtree(left, ignore_errors=True)


def _opened(place: BlobAddress, scratch: Path) -> tuple[Blobs, Contents]:
    """The places of a backup. Each copy of what is in a bucket goes when it was used, for it is used once."""
    return replace(place, cache_bytes=1).open(scratch / "cache")


def _require_whole(rows: Path, place: BlobAddress, advice: str) -> None:
    """Raise CorruptError if the rows of the backup in a place, copied to a file, are damaged."""
    try:
        with closing(sqlite3.connect(rows)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            tables = "SELECT count(*) FROM sqlite_master WHERE name = ?"
            if found == "ok" and connection.execute(tables, (store_identity.name,)).fetchone() == (0,):
                found = "it has no tables of Chorus"
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        message = f"{place.url.rstrip('/')}/{ROWS_FILE} is damaged ({found}): {advice}."
        raise CorruptError(message, code="corrupt_file")


@dataclass(frozen=True, slots=True)
class _Named:
    """What live rows name: digests, with sizes in bytes."""

    blobs: dict[str, int]
    files: dict[str, int]


def _named(connection: Connection) -> _Named:
    table = job_tables.files
    blobs = select(blob_table.c.digest, blob_table.c.size_bytes).where(blob_table.c.unreferenced_at.is_(None))
    files = select(table.c.sha256, table.c.size_bytes).where(table.c.deleted_at.is_(None)).distinct()
    return _Named(
        {row.digest: row.size_bytes for row in connection.execute(blobs)},
        {row.sha256: row.size_bytes for row in connection.execute(files)},
    )


class _Copying:
    """Copies bytes from one pair of places to another, each once."""

    def __init__(
        self,
        blobs: Blobs,
        contents: Contents,
        to_blobs: Blobs,
        to_contents: Contents,
        clock: Callable[[], datetime],
    ) -> None:
        self._blobs, self._contents = blobs, contents
        self._to_blobs, self._to_contents = to_blobs, to_contents
        self._clock = clock
        self._there: set[str] = set()
        self._copied = {"blobs": 0, "files": 0}
        self._damaged: set[str] = set()

    def copy(self, named: _Named) -> None:
        """Copy what is named and was not seen there yet."""
        self._damaged.clear()
        for digest, size in named.blobs.items():
            self._once(digest, size, self._to_blobs.size, self._copy_blob, "blobs")
        for digest, size in named.files.items():
            self._once(digest, size, self._to_contents.size, self._copy_file, "files")

    def report(self, rows: int) -> BackupReport:
        """What was copied in all; what was damaged at last."""
        return BackupReport(rows, self._copied["blobs"], self._copied["files"], tuple(sorted(self._damaged)))

    def _once(
        self,
        digest: str,
        size: int,
        size_there: Callable[[str], int | None],
        copy: Callable[[str], bool],
        kind: str,
    ) -> None:
        if digest in self._there:
            return
        if size_there(digest) != size:
            if not copy(digest):
                self._damaged.add(digest)
                return
            self._copied[kind] += 1
        self._there.add(digest)

    def _copy_blob(self, digest: str) -> bool:
        content = self._blobs.get(digest, fresh=True)
        try:
            if content is None or prompt_digest(decode(content, digest=digest)) != digest:
                return False
        except CorruptError:
            return False
        self._to_blobs.put(digest, content, now=self._clock())
        return True

    def _copy_file(self, digest: str) -> bool:
        try:
            with self._contents.local(digest) as path, self._to_contents.writer(self._clock()) as writer:
                if path is None:
                    return False
                with path.open("rb") as file:
                    while part := file.read(1 << 20):
                        writer.write(part)
                if writer.sha256 != digest:
                    return False
                return self._to_contents.keep(writer, writer.seal(self._clock()))
        except (CorruptError, FileNotFoundError):
            return False


def _copy_rows(source: Connection, target: Connection, tables: Iterable[Table]) -> int:
    total = 0
    for table in tables:
        found = source.execution_options(yield_per=_ROWS).execute(select(table)).mappings()
        for part in found.partitions(_ROWS):
            target.execute(insert(table), [dict(row) for row in part])
            total += len(part)
    return total


def _content_tables() -> list[Table]:
    """All but the id, which each store has for itself."""
    return [table for table in metadata.sorted_tables if table is not store_identity]


def _require_known(database: Database) -> None:
    """Raise ConflictError if there may be tables or columns that this code does not know: it would leave them
    out."""
    if database.newer:
        raise ConflictError("A newer Chorus made the tables: copy the store with that one.")


def _kept_tables() -> list[Table]:
    """What a restored store begins with. Browsers sign in to the console again, because what ended a session
    after the backup would be undone. The days of usage come with their hours, by the database's triggers."""
    left = (tenant_tables.sessions, usage_tables.usage_days)
    return [table for table in _content_tables() if table not in left]


def _require_empty(connection: Connection) -> None:
    for table in _content_tables():
        if connection.execute(select(text("1")).select_from(table).limit(1)).first() is not None:
            raise ConflictError(
                "The store is not empty: restore into a new data folder or database, before a server has "
                "used it.",
                code="store_not_empty",
            )


def _go_on_counting(connection: Connection) -> None:
    """PostgreSQL gives the next numbers after those that were restored."""
    if connection.dialect.name != "postgresql":
        return
    for table in _content_tables():
        column = table.autoincrement_column
        if column is not None:
            highest = connection.execute(select(func.max(column))).scalar()
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            if highest is not None:
                connection.execute(select(func.setval(sequence, highest)))
