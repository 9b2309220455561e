"""One database: read snapshots and exclusive writes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prompts_store import postgresql, sqlite
from prompts_store.errors import InvalidError, StoreError
from prompts_store.migrate import upgrade
from prompts_store.text import shown

LOG = logging.getLogger("chorus.store")

_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}


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
        # What a database server says of itself is for whoever started Chorus, not for its callers.
        self._tells = True

    @classmethod
    def open(cls, folder: Path, url: str | None) -> Database:
        """Create or migrate the database.

        Args:
            folder: holds `chorus.db` when `url` is None.
            url: an SQLAlchemy URL: `sqlite:///FILE`, `sqlite://` for one in memory, or
                `postgresql://USER:PASSWORD@HOST/NAME`.

        Raises:
            InvalidError: `invalid_database_url`, field `database_url`.
            StoreError: it cannot be opened, or a newer Chorus made it.
        """
        parsed = _parse(url, folder)
        embedded = parsed.get_backend_name() == "sqlite"
        memory = embedded and sqlite.is_memory(parsed)
        try:
            engine = (sqlite if embedded else postgresql).make_engine(parsed)
        except (ArgumentError, TypeError, ValueError) as error:
            raise _bad_url("The database URL cannot be used") from error
        database = cls(engine, memory=memory)
        # PostgreSQL's publish lock is enough to migrate under; SQLite must make its file before it can lock.
        opening = _opening(folder) if embedded and not memory else nullcontext()
        try:
            with opening, database.write() as connection:
                upgrade(connection)
        except (TypeError, ValueError) as error:  # the driver's, of an argument behind `?`
            engine.dispose()
            raise _bad_url("The database URL cannot be used") from error
        except BaseException:
            engine.dispose()
            raise
        database._tells = embedded
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot: everything read inside belongs to one moment."""
        with self._readers, self._translated(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The publish lock, and a transaction that commits whole at the end or not at all."""
        with self._writers, self._translated(), self.engine.connect() as connection:
            connection = connection.execution_options(**{sqlite.WRITE_OPTION: True})
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            kind, said = type(cause).__name__, " ".join(str(cause).split())
            if not self._tells:
                LOG.warning("the database did not answer: %s: %s", kind, said)
            raise StoreError(
                f"The database did not answer ({f'{kind}: {said}' if self._tells else kind}); nothing was "
                f"changed. Check that it can be reached and written, has free space and is not locked by "
                f"another program."
            ) from error

    @property
    def embedded(self) -> bool:
        """Whether it is SQLite, whose file is ours to look after; a database server looks after its own."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _parse(url: str | None, folder: Path) -> URL:
    if url is None:
        return URL.create("sqlite+pysqlite", database=str(folder / "chorus.db"))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number
        raise _bad_url("The database URL cannot be parsed") from error
    # A name without a driver means whichever one SQLAlchemy likes best.
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.drivername not in _DRIVERS.values():
        raise _bad_url(f"Metadata is kept in SQLite or PostgreSQL, not in {shown(parsed.drivername)}")
    return parsed


def _bad_url(what: str) -> InvalidError:
    return InvalidError(
        f"{what}; leave it out for the embedded database, or write sqlite:///FILE or "
        f"postgresql://USER:PASSWORD@HOST/NAME.",
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
