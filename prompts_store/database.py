"""One database: read snapshots and exclusive writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prompts_store import sqlite
from prompts_store.errors import InvalidError, StoreError
from prompts_store.migrate import upgrade


class Database:
    """The tables, behind two kinds of transaction.

    `write` is the *publish lock*: one writer at a time, over all threads and processes of one database.
    Whoever holds it and looks at the blobs sees what will still be true when it commits.
    """

    def __init__(self, engine: Engine, *, memory: bool) -> None:
        self.engine = engine
        # In this process writers queue here, in order, instead of polling the database's lock.
        self._writers = threading.RLock()
        # An in-memory database is one connection: readers take their turn as well.
        self._readers: AbstractContextManager[object] = self._writers if memory else nullcontext()

    @classmethod
    def open(cls, folder: Path, url: str | None) -> Database:
        """Create or migrate the database.

        Args:
            folder: holds `chorus.db` when `url` is None.
            url: an SQLAlchemy URL, `sqlite:///FILE`, or `sqlite://` for one in memory.

        Raises:
            InvalidError: `invalid_database_url`, field `database_url`.
            StoreError: it cannot be opened, or a newer Chorus made it.
        """
        parsed = _parse(url, folder)
        memory = sqlite.is_memory(parsed)
        engine = sqlite.make_engine(parsed)
        database = cls(engine, memory=memory)
        try:
            with nullcontext() if memory else _opening(folder), database.write() as connection:
                upgrade(connection)
        except BaseException:
            engine.dispose()
            raise
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot: everything read inside belongs to one moment."""
        with self._readers, _translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The publish lock, and a transaction that commits whole at the end or not at all."""
        with self._writers, _translated(), self.engine.connect() as connection:
            connection = connection.execution_options(**{sqlite.WRITE_OPTION: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _parse(url: str | None, folder: Path) -> URL:
    if url is None:
        return URL.create("sqlite+pysqlite", database=str(folder / "chorus.db"))
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _bad_url("The database URL cannot be parsed") from error
    if parsed.get_backend_name() != "sqlite":
        raise _bad_url(f"This version keeps its metadata in SQLite, not in {parsed.get_backend_name()}")
    return parsed


def _bad_url(what: str) -> InvalidError:
    return InvalidError(
        f"{what}; leave it out for the embedded database, or write sqlite:///FILE.",
        field="database_url",
        code="invalid_database_url",
    )


@contextmanager
def _opening(folder: Path) -> Iterator[None]:
    try:
        with sqlite.opening(folder):
            yield
    except OSError as error:
        raise StoreError(f"Cannot use the data folder: {error.strerror or error}.") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise StoreError(
            f"The database did not answer ({type(cause).__name__}: {cause}); nothing was changed. Check "
            f"that its folder is writable, has free space and is not locked by another program."
        ) from error
