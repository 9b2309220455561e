"""One database: read snapshots and exclusive writes."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from prompts_store.database import postgresql, sqlite
from prompts_store.database.migrate import is_empty, newest, upgrade
from prompts_store.database.privacy import make_private_database
from prompts_store.errors import InvalidError, NotFoundError, StoreError
from prompts_store.records import CHORUS, Actor, Creation
from prompts_store.text import shown

LOG = logging.getLogger("chorus.store")

PATIENCE_SECONDS = 30.0
"""How long a change waits for the publish lock before it fails. Readers never wait for a writer."""

EVERY_TENANT = postgresql.EVERY_TENANT
"""In the place of a tenant: what an operator or the store's upkeep does, which reads and writes all of them.
A lint lists who may say it."""

_ACTOR_OPTION = "prompts_store_actor"
_CREATION_OPTION = "prompts_store_creation"
_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}


class Database:
    """The tables, with two kinds of transaction. Each says whose rows it is about: a tenant's, or
    `EVERY_TENANT`'s. In PostgreSQL that is a second fence, behind the conditions of the queries: other rows
    are as if they were not there. SQLite has no such fence.

    `write` takes the *publish lock*: one writer at a time, over all threads and processes of one database.
        What its holder sees of the blobs is still true when it commits. What needs no such promise can be
        written beside others: PostgreSQL then locks its own rows alone, and SQLite has one writer anyway.
    """

    def __init__(self, engine: Engine, *, memory: bool) -> None:
        self.engine = engine
        self.patience_seconds = PATIENCE_SECONDS
        # Writers of this process queue here, in order, instead of polling the database's lock.
        self._writers = threading.RLock()
        # An in-memory database has one connection, so readers take turns too.
        self._readers: AbstractContextManager[object] = self._writers if memory else nullcontext()
        # What a database server says about itself is for the operator, not for callers.
        self._tells = True
        # The migration of a newer Chorus that made the tables, so that there may be some that this code does
        # not know; None where this code knows them all.
        self.newer: str | None = None
        self._actor = CHORUS
        self.creation: Creation | None = None

    @classmethod
    def open(cls, folder: Path, url: str | None, *, make: bool = True) -> Database:
        """Create or migrate the database. Only its owner can read an SQLite file.

        Args:
            folder: contains `chorus.db` if `url` is None.
            url: an SQLAlchemy URL: `sqlite:///FILE`, `sqlite://` for one in memory, or
                `postgresql://USER:PASSWORD@HOST/NAME`.
            make: whether to create the database if there is none.

        Raises:
            InvalidError: `invalid_database_url`, field `database_url`.
            NotFoundError: `no_store`: there is none, and none may be created.
            StoreError: it cannot be opened, or a newer Chorus made it.
        """
        parsed = _parse(url, folder)
        embedded = parsed.get_backend_name() == "sqlite"
        memory = embedded and sqlite.is_memory(parsed)
        file = Path(str(parsed.database)) if embedded and not memory else None
        if file and not make and not file.exists():
            raise _no_store(f"there is no {file}")
        try:
            engine = (sqlite if embedded else postgresql).make_engine(parsed)
        except (ArgumentError, TypeError, ValueError) as error:
            raise _bad_url("The database URL cannot be used") from error
        database = cls(engine, memory=memory)
        # PostgreSQL's publish lock is enough to migrate under; SQLite must create its file before it can lock
        # it.
        opening = _opening(folder, file) if file else nullcontext()
        try:
            with opening, database.write(EVERY_TENANT) as connection:
                if not make and is_empty(connection):
                    raise _no_store("it has no tables")
                database.newer = _upgrade(connection)
        except (TypeError, ValueError) as error:  # the driver's, about an argument after `?`
            engine.dispose()
            raise _bad_url("The database URL cannot be used") from error
        except BaseException:
            engine.dispose()
            raise
        database._tells = embedded
        return database

    @property
    def migration(self) -> str:
        """The last migration that this code knows."""
        return newest()

    def acting_for(self, actor: Actor) -> Database:
        """The same database, with the same connections and locks, whose changes are this actor's."""
        view = copy.copy(self)
        view._actor = actor
        return view

    def creating(self, creation: Creation) -> Database:
        """The same database, for one request to create something."""
        view = copy.copy(self)
        view.creation = creation
        return view

    @contextmanager
    def read(self, tenant: str) -> Iterator[Connection]:
        """One snapshot of a tenant's rows: everything read inside the block belongs to the same moment."""
        with self._readers, self._translated(), self.engine.connect() as connection:
            connection = connection.execution_options(**{postgresql.TENANT_OPTION: tenant})
            with connection.begin():
                yield connection

    @contextmanager
    def write(
        self,
        tenant: str,
        patience_seconds: float | None = None,
        *,
        alone: bool = True,
        losable: bool = False,
    ) -> Iterator[Connection]:
        """Take the publish lock and begin a transaction on a tenant's rows. At the end it commits whole or
        not at all.

        Args:
            patience_seconds: how long to wait for a lock, here and in the database together; by default the
                database's own patience.
            alone: False to write beside others, without the publish lock.
            losable: whether a power cut may take it again, as long as no later change is on the disk. No
                process's death does.

        Raises:
            StoreError: somebody else held the lock all that time, or the database failed.
        """
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        beside = not alone and not self.embedded
        turn = nullcontext(max(1, round(1000 * patience))) if beside else self._turn(patience)
        with turn as left_ms, self._translated(), self.engine.connect() as connection:
            options = {sqlite.WRITE_OPTION: left_ms, _ACTOR_OPTION: self._actor}
            options |= {postgresql.BESIDE_OPTION: beside, sqlite.LOSABLE_OPTION: losable}
            options[_CREATION_OPTION] = self.creation
            connection = connection.execution_options(**options, **{postgresql.TENANT_OPTION: tenant})
            with connection.begin():
                yield connection

    @contextmanager
    def _turn(self, patience_seconds: float) -> Iterator[int]:
        """Wait for this process's turn to write. Yields how many milliseconds of patience are left."""
        started = time.monotonic()
        if not self._writers.acquire(timeout=patience_seconds):
            raise _locked()
        try:
            yield max(1, round(1000 * (patience_seconds - (time.monotonic() - started))))
        finally:
            self._writers.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            if sqlite.is_locked(cause) or postgresql.is_locked(cause):
                raise _locked() from error
            kind, said = type(cause).__name__, " ".join(str(cause).split())
            if not self._tells:
                LOG.warning("the database did not answer: %s: %s", kind, said)
            raise StoreError(
                f"The database did not answer ({f'{kind}: {said}' if self._tells else kind}); nothing was "
                f"changed. Check that it can be reached and written, has free space and is not locked by "
                f"another program."
            ) from error

    def fence_fault(self) -> str | None:
        """Why tenants are kept apart by the queries' own conditions alone; None if row-level security stands
        behind them."""
        if self.embedded:
            return "SQLite has none"
        with self.read(EVERY_TENANT) as connection:
            return postgresql.fence_fault(connection)

    @property
    def embedded(self) -> bool:
        """Whether it is SQLite, whose file we look after; a database server looks after its own files."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


def _upgrade(connection: Connection) -> str | None:
    """Make or change the tables, unless this login may not. See `upgrade`."""
    try:
        newer = upgrade(connection)
    except SQLAlchemyError as error:
        if not postgresql.is_forbidden(getattr(error, "orig", None) or error):
            raise
        raise StoreError(
            "The database has no tables, or those of an older Chorus, and this login may not change them; "
            "run `chorus store migrate` with the database URL of one that owns them, such as chorus_migrate."
        ) from error
    if connection.dialect.name == "postgresql" and postgresql.sees_nothing(connection):
        raise StoreError(
            "This login neither owns the tables nor may be chorus_upkeep, so row-level security would hide "
            "every row from it; run deploy/postgresql/roles.sql on the database and log in as chorus_app."
        )
    return newer


@contextmanager
def scoped(connection: Connection, tenant: str) -> Iterator[None]:
    """Within a transaction, read and write another tenant's rows, or `EVERY_TENANT`'s, until the block
    ends."""
    before = connection.get_execution_options()[postgresql.TENANT_OPTION]
    if before == tenant:
        yield
        return
    _move(connection, tenant)
    try:
        yield
    except BaseException:
        # A failed statement has ended the transaction: then there is nothing to go back to.
        with suppress(SQLAlchemyError):
            _move(connection, before)
        raise
    _move(connection, before)


def _move(connection: Connection, tenant: str) -> None:
    connection.execution_options(**{postgresql.TENANT_OPTION: tenant})
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(postgresql.scope(connection))


def acting(connection: Connection) -> Actor:
    """Who makes the changes of a connection that `Database.write` gave."""
    actor: Actor = connection.get_execution_options()[_ACTOR_OPTION]
    return actor


def creation_of(connection: Connection) -> Creation | None:
    """What the changes of a connection that `Database.write` gave were asked for by, if it may come again."""
    creation: Creation | None = connection.get_execution_options()[_CREATION_OPTION]
    return creation


def _locked() -> StoreError:
    return StoreError(
        "The database is locked: another change, or another program that has it open, holds its lock; "
        "nothing was changed. Try again; if this goes on, find out which program holds the lock."
    )


def _parse(url: str | None, folder: Path) -> URL:
    if url is None:
        return URL.create("sqlite+pysqlite", database=str(folder / "chorus.db"))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is not a number
        raise _bad_url("The database URL cannot be parsed") from error
    # For a name without a driver, SQLAlchemy would choose one itself.
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.drivername not in _DRIVERS.values():
        raise _bad_url(f"Metadata can be kept in SQLite or PostgreSQL, not in {shown(parsed.drivername)}")
    return parsed


def _bad_url(what: str) -> InvalidError:
    return InvalidError(
        f"{what}; leave it out for the embedded database, or write sqlite:///FILE or "
        f"postgresql://USER:PASSWORD@HOST/NAME.",
        field="database_url",
        code="invalid_database_url",
    )


def _no_store(why: str) -> NotFoundError:
    return NotFoundError(
        f"There is no database of Chorus here: {why}. Check the data folder and the database URL, or restore "
        f"a backup; `chorus serve` makes a store.",
        field="database_url",
        code="no_store",
    )


@contextmanager
def _opening(folder: Path, file: Path) -> Iterator[None]:
    try:
        with sqlite.opening(folder):
            make_private_database(file)
            yield
    except OSError as error:
        raise StoreError(f"Cannot use the data folder: {error.strerror or error}.") from error
