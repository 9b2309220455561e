"""Everything that only PostgreSQL needs; the counterpart of `sqlite`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event

from prompts_store.database.sqlite import LOSABLE_OPTION, WRITE_OPTION
from prompts_store.errors import InvalidError
from prompts_store.names import check_name

# Only somebody who changes the tables themselves makes a reader wait.
READ_PATIENCE_MS = 5_000
CONNECT_TIMEOUT_SECONDS = 10
# Any number will do, as long as every Chorus uses the same one.
PUBLISH_LOCK = 0x43_48_4F_52_55_53
# No tenant's name.
EVERY_TENANT = "*"
UPKEEP = "chorus_upkeep"
# `Database` sets this on its connections: whose rows they are about.
TENANT_OPTION = "prompts_store_tenant"
# And whether they write without the publish lock.
BESIDE_OPTION = "prompts_store_beside"
_LOCK_NOT_AVAILABLE = "55P03"
_INSUFFICIENT_PRIVILEGE = "42501"
_DATA_EXCEPTION = "22"
# Tables that no tenant owns, so that they have no policies.
_OPEN = ("alembic_version", "blobs", "store_identity")


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
        engine = create_engine(
            url, pool_pre_ping=True, max_overflow=64, connect_args=patience, hide_parameters=True
        )
    except ModuleNotFoundError as error:
        raise InvalidError(
            "PostgreSQL needs the package psycopg; install chorus-prompts[postgresql].",
            field="database_url",
            code="invalid_database_url",
        ) from error
    event.listen(engine, "handle_error", _keep_to_oneself)
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)
    return engine


def is_locked(error: BaseException) -> bool:
    """Whether this is PostgreSQL's error for a lock that did not come in time."""
    return getattr(error, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def is_forbidden(error: BaseException) -> bool:
    """Whether this is PostgreSQL's error for what this login may not do."""
    return getattr(error, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE


def sees_nothing(connection: Connection) -> bool:
    """Whether even what is done for every tenant would find no rows, because this login may not be
    `chorus_upkeep`."""
    if connection.info[UPKEEP]:
        return False
    owns = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'tasks'::regclass"
    return not connection.exec_driver_sql(owns).scalar_one()


def fence_fault(connection: Connection) -> str | None:
    """Why row-level security does not keep this login's queries to one tenant, or could be switched off by
    it; None if all stands."""
    login = connection.exec_driver_sql(
        "SELECT rolname, rolsuper, rolbypassrls, pg_has_role(oid, relowner, 'MEMBER') AS owns "
        "FROM pg_roles, (SELECT relowner FROM pg_class WHERE oid = 'tasks'::regclass) AS tables "
        "WHERE rolname = session_user"
    ).one()
    if login.rolsuper or login.rolbypassrls:
        return f"no policy holds the login {login.rolname}, a superuser or one with BYPASSRLS"
    if login.owns:
        return f"the login {login.rolname} owns the tables, so it could switch their policies off"
    bare = connection.exec_driver_sql(
        "SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class "
        "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' "
        f"AND relname NOT IN {_OPEN} AND NOT (relrowsecurity AND relforcerowsecurity)"
    ).scalar_one()
    return bare and f"these tables have no policies: {bare}"


def scope(connection: Connection) -> str:
    """The statement that says, until the transaction ends, whose rows it is about."""
    tenant: str = connection.get_execution_options()[TENANT_OPTION]
    if tenant != EVERY_TENANT:
        check_name(tenant, field="tenant")  # it becomes a part of the statement
    role = UPKEEP if tenant == EVERY_TENANT and connection.info[UPKEEP] else "none"
    return f"SELECT set_config('chorus.tenant', '{tenant}', true), set_config('role', '{role}', true)"


def _keep_to_oneself(context: ExceptionContext) -> None:
    """Take out of an error what PostgreSQL repeats of the rows, because errors go to the log: DETAIL says the
    values of a key, or of a whole row, and a message about data (class 22) may quote them."""
    error: Any = context.original_exception
    state, said = getattr(error, "sqlstate", None), getattr(error, "diag", None)
    if state is None or said is None or said.message_primary is None:
        return
    where = " ".join(filter(None, (said.table_name, said.column_name, said.constraint_name)))
    quotes = state.startswith(_DATA_EXCEPTION) and '"' in said.message_primary
    told = "a value was refused" if quotes else said.message_primary
    error.args = (f"{told} [{' '.join(filter(None, (state, where)))}]",)
    if context.sqlalchemy_exception is not None:  # it has already been told by the other
        context.sqlalchemy_exception.args = error.args


def _connect(connection: Any, record: Any) -> None:
    # The tables' owner needs no other role, and is the only one where there are no tables yet.
    (record.info[UPKEEP],) = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('tasks') "
        "AND NOT pg_has_role(session_user, relowner, 'MEMBER')) "
        f"AND EXISTS (SELECT FROM pg_roles WHERE rolname = '{UPKEEP}' "
        "AND pg_has_role(session_user, oid, 'MEMBER'))"
    ).fetchone()
    connection.rollback()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    patience_ms = options.get(WRITE_OPTION)
    # Whoever does not say whose rows sees none.
    whose = scope(connection) if TENANT_OPTION in options else ""
    if patience_ms is None:
        connection.exec_driver_sql(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; "
            f"SET LOCAL lock_timeout = {READ_PATIENCE_MS}; {whose}"
        )
    else:
        disk = "SET LOCAL synchronous_commit = off; " if options.get(LOSABLE_OPTION) else ""
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {patience_ms}; {disk}{whose}")
        if not options.get(BESIDE_OPTION):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({PUBLISH_LOCK})")
