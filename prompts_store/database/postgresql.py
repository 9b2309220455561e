"""Everything that only PostgreSQL needs; the counterpart of `sqlite`."""

from __future__ import annotations

from sqlalchemy import URL, Connection, Engine, create_engine, event

from prompts_store.database.sqlite import WRITE_OPTION
from prompts_store.errors import InvalidError

# Only somebody who changes the tables themselves makes a reader wait.
READ_PATIENCE_MS = 5_000
CONNECT_TIMEOUT_SECONDS = 10
# Any number will do, as long as every Chorus uses the same one.
PUBLISH_LOCK = 0x43_48_4F_52_55_53
_LOCK_NOT_AVAILABLE = "55P03"


def make_engine(url: URL) -> Engine:
    """An engine whose writes take the publish lock when they begin, and whose reads are snapshots.

    The lock is PostgreSQL's own. The transaction holds it, so it ends with the transaction, also if the
    process dies. Writes are READ COMMITTED, so that they read what was there when they got the lock, not when
    they asked for it.

    Raises:
        InvalidError: `invalid_database_url`: the driver is not installed.
    """
    # Otherwise a host that does not answer would delay the start for minutes.
    patience = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_TIMEOUT_SECONDS}
    try:
        engine = create_engine(url, pool_pre_ping=True, max_overflow=64, connect_args=patience)
    except ModuleNotFoundError as error:
        raise InvalidError(
            "PostgreSQL needs the package psycopg; install chorus-prompts[postgresql].",
            field="database_url",
            code="invalid_database_url",
        ) from error
    event.listen(engine, "begin", _begin)
    return engine


def is_locked(error: BaseException) -> bool:
    """Whether this is PostgreSQL's error for a lock that did not come in time."""
    return getattr(error, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def _begin(connection: Connection) -> None:
    patience_ms = connection.get_execution_options().get(WRITE_OPTION)
    if patience_ms is None:
        connection.exec_driver_sql(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; "
            f"SET LOCAL lock_timeout = {READ_PATIENCE_MS}"
        )
    else:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {patience_ms}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({PUBLISH_LOCK})")
