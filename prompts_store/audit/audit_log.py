"""The store's audit log: read, verify, drop what is older than it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, delete, func, select, update

from prompts_store import checks
from prompts_store.audit import chain
from prompts_store.audit.records import OF_THE_STORE, AuditFilter, AuditHead, AuditReport, AuditRow
from prompts_store.audit.verifying import verify
from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT
from prompts_store.database.audit_tables import audit, audit_heads
from prompts_store.database.tenant_tables import tenants
from prompts_store.errors import InvalidError
from prompts_store.months import month_of
from prompts_store.names import check_name
from prompts_store.pages import DEFAULT_LIMIT, MAX_LIMIT, check_limit
from prompts_store.text import shown

EVERYTHING = AuditFilter()

_DROPPED_AT_ONCE = 10_000
_READ_AT_ONCE = 1000


class AuditLog(StoreBase):
    """Who changed what. Rows are written with the changes that they tell, by every room of the store."""

    def audit_rows(
        self,
        tenant: str,
        *,
        after: int = 0,
        limit: int = DEFAULT_LIMIT,
        which: AuditFilter = EVERYTHING,
    ) -> list[AuditRow]:
        """A tenant's rows after a number, oldest first, at most `limit`; of the whole store with
        `OF_THE_STORE`.

        Raises:
            InvalidError: names the field at fault.
        """
        _check_log(tenant)
        if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < 2**63:
            raise InvalidError(
                f"{shown(after)} is not the number of a row; send the last one that you have, or 0.",
                field="after",
            )
        query = _rows(tenant, after, which).limit(check_limit(limit))
        with self._database.read(_scope(tenant)) as connection:
            return [chain.row_record(row) for row in connection.execute(query)]

    def every_audit_row(self, tenant: str, which: AuditFilter = EVERYTHING) -> Iterator[AuditRow]:
        """All of a tenant's rows, oldest first, to export. Nothing is held between two of them.

        Raises:
            InvalidError: names the field at fault.
        """
        after = 0
        while rows := self.audit_rows(tenant, after=after, limit=MAX_LIMIT, which=which):
            yield from rows
            after = rows[-1].sequence

    def audited(self) -> list[str]:
        """The tenants that have a log, by name; `OF_THE_STORE` is among them."""
        with self._database.read(EVERY_TENANT) as connection:
            query = select(audit_heads.c.tenant).order_by(audit_heads.c.tenant)
            return list(connection.execute(query).scalars())

    def verify_audit(self, tenant: str) -> AuditReport:
        """Compare all of a tenant's rows with their hashes, in one snapshot.

        It finds what was changed, removed or moved behind the store's back. Whoever may write the database
        may also compute a whole new chain: against that, keep a report's head elsewhere.

        Raises:
            InvalidError: `invalid_name`.
        """
        _check_log(tenant)
        with self._database.read(_scope(tenant)) as connection:
            return verify_log(connection, tenant)

    def drop_audit(self, days: int | None = None) -> int:
        """Drop the rows of whole months, UTC, that are longer ago than they are kept; answers with how many.

        The rest is still a chain: the head keeps the hash of the newest row that was dropped. Each drop is
        told in the log. Only from the oldest row on, whatever the writers' clocks said.

        Args:
            days: for logs whose tenant has no wish of its own; None keeps them for ever.

        Raises:
            InvalidError: field `days`.
            StoreError: the database failed; dropping again goes on.
        """
        if days is not None and not (checks.is_finite(days) and days >= 1):
            raise InvalidError(f"{shown(days)} is no number of days.", field="days")
        now = self._clock()
        kept = func.coalesce(tenants.c.audit_days, days).label("days")
        query = select(audit_heads.c.tenant, kept).outerjoin(tenants, tenants.c.name == audit_heads.c.tenant)
        with self._database.read(EVERY_TENANT) as connection:
            logs = [(row.tenant, row.days) for row in connection.execute(query) if row.days is not None]
        dropped = 0
        for tenant, kept_days in logs:
            before = month_of(now - timedelta(days=kept_days))
            while number := self._drop(tenant, before, now):
                dropped += number
        return dropped

    def _drop(self, tenant: str, before: datetime, now: datetime) -> int:
        with self._database.read(EVERY_TENANT) as connection:
            if _droppable(connection, tenant, before) is None:
                return 0
        with self._database.write(EVERY_TENANT) as connection:
            found = _droppable(connection, tenant, before)
            if found is None:
                return 0
            first, last, last_hash = found
            head = audit_heads.c.tenant == tenant
            # First this: the database lets no row go that its head does not call dropped.
            connection.execute(update(audit_heads).where(head).values(dropped=last, dropped_hash=last_hash))
            connection.execute(delete(audit).where(audit.c.tenant == tenant, audit.c.sequence <= last))
            gone = {"first": first, "last": last, "last_hash": last_hash}
            chain.append(connection, "audit.drop", tenant, now=now, before=gone)
        return last - first + 1


def verify_log(
    connection: Connection, tenant: str, going_on: Callable[[], None] = lambda: None
) -> AuditReport:
    """See `AuditLog.verify_audit`.

    Args:
        going_on: called before each row; what it raises ends it.
    """
    query = select(audit_heads).where(audit_heads.c.tenant == tenant)
    row = connection.execute(query).one_or_none()
    head = row if row is None else AuditHead(row.sequence, row.hash, row.dropped, row.dropped_hash)
    rows = connection.execute(_rows(tenant, 0, EVERYTHING), execution_options={"yield_per": _READ_AT_ONCE})

    def records() -> Iterator[AuditRow]:
        for row in rows:
            going_on()
            yield chain.row_record(row)

    return verify(tenant, head, records())


def _rows(tenant: str, after: int, which: AuditFilter) -> Select[tuple[object, ...]]:
    query = select(audit).where(audit.c.tenant == tenant, audit.c.sequence > after)
    for column, value in (
        (audit.c.actor, which.actor),
        (audit.c.action, which.action),
        (audit.c.subject, which.subject),
    ):
        if value is not None:
            query = query.where(column == checks.check_text(value, field=column.name))
    for field, moment in (("since", which.since), ("until", which.until)):
        if moment is not None and (not isinstance(moment, datetime) or moment.utcoffset() is None):
            raise InvalidError(f"{shown(moment)} is no moment with a time zone.", field=field)
    if which.since is not None:
        query = query.where(audit.c.at >= which.since)
    if which.until is not None:
        query = query.where(audit.c.at < which.until)
    return query.order_by(audit.c.sequence)


def _droppable(connection: Connection, tenant: str, before: datetime) -> tuple[int, int, str] | None:
    """The numbers of the first and the last row that may be dropped at once, and the last one's hash; None
    where none may, or where a row is missing, so that what shows this is kept."""
    head = connection.execute(select(audit_heads).where(audit_heads.c.tenant == tenant)).one()
    of_tenant = select(audit.c.sequence, audit.c.hash).where(audit.c.tenant == tenant)
    later = of_tenant.where(audit.c.at >= before).order_by(audit.c.sequence).limit(1)
    kept = connection.execute(later).one_or_none()
    end = head.sequence if kept is None else kept.sequence - 1
    last = min(end, head.dropped + _DROPPED_AT_ONCE)
    if last <= head.dropped:
        return None
    going = connection.execute(of_tenant.where(audit.c.sequence <= last).order_by(audit.c.sequence)).all()
    whole = len(going) == last - head.dropped
    return (head.dropped + 1, last, going[-1].hash) if whole else None


def _scope(tenant: str) -> str:
    """Whose rows a log's are. The whole store's belong to no tenant."""
    return EVERY_TENANT if tenant == OF_THE_STORE else tenant


def _check_log(tenant: str) -> None:
    if tenant != OF_THE_STORE:
        check_name(tenant, field="tenant")
