"""Everything that only SQLite needs. No other file has SQL for a single kind of database."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool, StaticPool

from prompts_store.durable import sync_folder

# In WAL mode a reader waits only for recovery after a crash, or for a program that locked the whole file.
READ_PATIENCE_MS = 5_000
# The commit that makes the write-ahead log so long also copies it into the database, which takes some
# milliseconds. By default that is every 1,000 pages: with 100,000 keys, more than one first lease of a
# hundred would wait for it.
_LOG_PAGES = 4_000
# `Database.write` sets this on its connection: how many milliseconds it waits for the publish lock.
WRITE_OPTION = "prompts_store_write"
# And this, where a power cut may take what was written last: the commit does not wait for the disk.
LOSABLE_OPTION = "prompts_store_losable"


def is_memory(url: URL) -> bool:
    """Whether the database lives in this process only."""
    return url.database in (None, "", ":memory:")


def make_engine(url: URL) -> Engine:
    """An engine whose transactions are all explicit.

    The driver's own transaction handling is switched off: it begins late, commits before some statements, and
    cannot say IMMEDIATE. A write takes the database's one write lock when it begins, so it never fails
    halfway because what it read has changed.
    """
    memory = is_memory(url)
    options: dict[str, Any] = (
        {"poolclass": StaticPool} if memory else {"poolclass": QueuePool, "max_overflow": 64}
    )
    engine = create_engine(url, connect_args={"check_same_thread": False}, hide_parameters=True, **options)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """One process at a time creates and migrates, because switching to WAL does not wait for a lock by
    itself.

    The lock file stays. If it were removed, two processes could lock two files of the same name.
    """
    descriptor = os.open(folder / "open.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        # SQLite syncs the database, but not a new database's name in its folder.
        sync_folder(folder)
    finally:
        os.close(descriptor)


def integrity_problems(connection: Connection) -> list[str]:
    """What SQLite itself finds wrong with the file and its foreign keys; empty if all is well."""
    found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
    keys = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return found + [f"row {row[1]} of {row[0]} refers to a row that {row[2]} does not have" for row in keys]


def _configure(connection: Any, record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={READ_PATIENCE_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL: a commit that has returned survives a power cut. WAL's default, NORMAL, would lose the last ones.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
    cursor.close()


def is_locked(error: BaseException) -> bool:
    """Whether this is SQLite's error for a lock that did not come in time."""
    # Python raises some of these errors itself, without a code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    patience_ms = options.get(WRITE_OPTION)
    # Call the driver itself: SQLAlchemy's way takes 15 times as long, in every read.
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout={patience_ms or READ_PATIENCE_MS}")
    # In a transaction that a fault left open, BEGIN says so, and as an error of SQLAlchemy's.
    if patience_ms is not None and not driver.in_transaction:
        driver.execute(f"PRAGMA synchronous={'NORMAL' if options.get(LOSABLE_OPTION) else 'FULL'}")
    connection.exec_driver_sql("BEGIN" if patience_ms is None else "BEGIN IMMEDIATE")
