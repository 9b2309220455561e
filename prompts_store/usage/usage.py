"""Usage: rows are added and rolled up by the hour in one transaction, added up on request, and dropped by
whole months. The database itself adds hours up to days, which whole days of a request are read from.

So the sums of the hours are those of the rows at every instant, whatever was cut off, and need no state of
their own. A row that is written again is known by its replica and sequence, and counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Select,
    Subquery,
    Table,
    delete,
    func,
    insert,
    literal_column,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite

from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tenant_tables import tenants
from prompts_store.database.usage_tables import usage, usage_days, usage_hours
from prompts_store.errors import InvalidError
from prompts_store.months import month_after, month_of
from prompts_store.names import check_name
from prompts_store.text import shown
from prompts_store.usage.records import USAGE_GROUPS, UsageRow, UsageSum

USAGE_DAYS = 400
"""How long the hours of a tenant are kept that has no retention of its own: more than a year."""
ROWS_DAYS = 31
"""How long single rows are kept. Their hours stay, unless the tenant's own retention is shorter."""
MAX_SUMS = 50_000
"""The most sums in one answer."""

_AT_ONCE = 10_000
"""Rows dropped in one transaction, give or take those of one instant."""
_FIRST_YEAR, _LAST_YEAR = 1971, 9998
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_DAY_MICROSECONDS = 86_400_000_000
_MAX_DAYS_OF_A_MONTH = 31
_SPANS = ("hour", "day", "month")
_KEYS = ("tenant", "hour", "key", "task", "outcome")
_ORDER = ("tenant", "key", "task", "outcome", "hour")
_COUNTS = ("items", "tokens_in", "tokens_out", "work_units")


class Usage(StoreBase):
    """What tenants used, by key, task and outcome."""

    def record_usage(
        self, replica: str, rows: Sequence[UsageRow], *, patience_seconds: float | None = None
    ) -> int:
        """Add rows, and add them to their hours. Those that were written before are left out.

        Args:
            replica: 16 hexadecimal digits, drawn by whoever counts the rows.
            patience_seconds: how long to wait for another who adds to the same hours.

        Returns:
            How many rows were new.

        Raises:
            StoreError: nothing was written; the same rows can be written again.
        """
        wanted = {row.sequence: row for row in rows}
        values = {row.sequence: _values(replica, row) for row in rows}  # before anybody waits for the lock
        if not wanted:
            return 0
        known = select(usage.c.sequence).where(
            usage.c.replica == replica, usage.c.sequence.between(min(wanted), max(wanted))
        )
        # Replicas of a large fleet write this each second: beside each other.
        with self._database.write(EVERY_TENANT, patience_seconds, alone=False) as connection:
            for sequence in connection.execute(known).scalars():
                wanted.pop(sequence, None)
            if wanted:
                connection.execute(insert(usage), [values[sequence] for sequence in wanted])
                _roll_up(connection, wanted.values())
        return len(wanted)

    def usage(
        self,
        since: datetime,
        until: datetime,
        *,
        tenant: str | None,
        group_by: Sequence[str] = (),
        tasks: Sequence[str] | None = None,
        top: int | None = None,
    ) -> list[UsageSum]:
        """Usage from one moment until another, in whole hours, ordered by time, tenant, key, task, outcome.

        Args:
            since: its hour is the first.
            until: the hour that has the moment before it is the last.
            tenant: whose; None for everybody's, which is for operators.
            group_by: of `USAGE_GROUPS`, in any order; nothing gives one sum, of everything.
            tasks: only what these used, as in `UsageRow`; None for any.
            top: only so many sums, those with the most work units, largest first.

        Raises:
            InvalidError: with the field at fault; `group_by` if there would be more than `MAX_SUMS`.
        """
        groups = _check_groups(group_by)
        for moment, field in ((until, "to"), (since, "from")):
            if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
                message = f"The year must be {_FIRST_YEAR} to {_LAST_YEAR}, not {moment.year}."
                raise InvalidError(message, field=field)
        if since > until:
            raise InvalidError("The end is before the beginning: swap them.", field="to")
        span = next((name for name in _SPANS if name in groups), None)
        names = [name for name in _KEYS if name in groups and name != "hour"]
        begin, end = _hour_of(since), _end_of(until)
        added = None
        if tenant is not None and tasks is None and span != "hour":
            added = _of_days(check_name(tenant, field="tenant"), begin, end, names, span)
        if added is None:
            query = _added(usage_hours, names, span, begin, end)
            if tenant is not None:
                query = query.where(usage_hours.c.tenant == check_name(tenant, field="tenant"))
            if tasks is not None:
                for part in (part for name in tasks for part in name.split("/", 1)):
                    check_name(part, field="task")
                query = query.where(usage_hours.c.task.in_(tasks))
            added = query.subquery()
        columns = [added.c[name] for name in (["start"] if span else []) + names]
        sums = [func.coalesce(func.sum(added.c[name]), 0).label(name) for name in _COUNTS]
        query = select(*columns, *sums)
        most = MAX_SUMS * (_MAX_DAYS_OF_A_MONTH if span == "month" else 1)
        ranked = top is not None and span != "month"  # months are made of days, and ranked after that
        if columns:
            order = [sums[-1].desc(), *columns] if ranked else columns
            query = query.group_by(*columns).having(func.sum(added.c["items"]) > 0)
            query = query.order_by(*order).limit(top if ranked else most + 1)
        with self._database.read(EVERY_TENANT if tenant is None else tenant) as connection:
            rows = connection.execute(query).all()
        found = _months(rows) if span == "month" else [_sum_of(row) for row in rows]
        if len(found) > MAX_SUMS or len(rows) > most:
            raise InvalidError(
                f"These groups are more than {MAX_SUMS}: ask for a shorter time, or group by less.",
                field="group_by",
            )
        if top is not None and not ranked:
            found.sort(key=lambda each: -each.work_units)
        return found[:top]

    def drop_usage(self) -> int:
        """Drop months that ended longer ago than their tenant's usage is kept. Returns how many rows went.

        Hours go after `Retention.usage_days` or else `USAGE_DAYS`; rows after `ROWS_DAYS`, or with their
        hours. Many transactions, from the oldest on: what was cut off, the next call goes on with.
        """
        now, dropped = self._clock(), 0
        owners = (
            select(usage_hours.c.tenant, tenants.c.usage_days)
            .distinct()
            .outerjoin(tenants, tenants.c.name == usage_hours.c.tenant)
        )
        with self._database.read(EVERY_TENANT) as connection:
            kept = connection.execute(owners).all()
        for tenant, own in kept:
            days = USAGE_DAYS if own is None else own
            dropped += self._drop_rows(tenant, month_of(now - timedelta(days=min(days, ROWS_DAYS))))
            self._drop_hours(tenant, month_of(now - timedelta(days=days)))
        return dropped

    def drop_usage_of(self, tenant: str) -> int:
        """Drop everything that a tenant used; answers with how many rows."""
        end = datetime.max.replace(tzinfo=UTC)
        dropped = self._drop_rows(tenant, end)
        self._drop_hours(tenant, end)
        # Rows that came meanwhile have no hour any more, and nothing else would drop them.
        return dropped + self._drop_rows(tenant, end)

    def _drop_rows(self, tenant: str, before: datetime) -> int:
        old = select(usage.c.at).where(usage.c.tenant == tenant, usage.c.at < before).order_by(usage.c.at)
        dropped = 0
        while True:
            with self._database.read(EVERY_TENANT) as connection:
                first = connection.execute(old.limit(1)).scalar()
                last = connection.execute(old.offset(_AT_ONCE - 1).limit(1)).scalar()
            if first is None:
                return dropped
            some = delete(usage).where(usage.c.tenant == tenant, usage.c.at < before)
            with self._database.write(EVERY_TENANT) as connection:
                some = some if last is None else some.where(usage.c.at <= last)
                dropped += connection.execute(some).rowcount

    def _drop_hours(self, tenant: str, before: datetime) -> None:
        """A month at a time, so that no month is ever there in part."""
        mine = usage_hours.c.tenant == tenant
        oldest = select(func.min(usage_hours.c.hour)).where(mine, usage_hours.c.hour < before)
        while True:
            with self._database.read(EVERY_TENANT) as connection:
                first = connection.execute(oldest).scalar()
            if first is None:
                return
            end = min(before, month_after(first))
            with self._database.write(EVERY_TENANT) as connection:
                if not self._database.embedded:
                    _lock_in_order(connection, tenant, end)
                connection.execute(delete(usage_hours).where(mine, usage_hours.c.hour < end))


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _end_of(moment: datetime) -> datetime:
    hour = _hour_of(moment)
    return hour if hour == moment else hour + _HOUR


def _day_of(moment: datetime) -> datetime:
    return moment.replace(hour=0)


def _of_days(
    tenant: str, begin: datetime, end: datetime, names: Sequence[str], span: str | None
) -> Subquery | None:
    """Sums of whole days, and those of the hours that these have too much, which are negative.
    None where that would read more hours than the time has."""
    first, last = _day_of(begin), _day_of(end + _DAY - _HOUR)
    if (begin - first) + (last - end) >= end - begin:
        return None
    parts = [_added(usage_days, names, span, first, last).where(usage_days.c.tenant == tenant)]
    for since, until in ((first, begin), (end, last)):
        if since < until:
            more = _added(usage_hours, names, span, since, until, sign=-1)
            parts.append(more.where(usage_hours.c.tenant == tenant))
    return union_all(*parts).subquery()


def _added(
    table: Table, names: Sequence[str], span: str | None, begin: datetime, end: datetime, sign: int = 1
) -> Select[Any]:
    """Sums of a table's hours or days in a time, added up by some of their keys and by a span."""
    at = table.c.day if table is usage_days else table.c.hour
    columns = [_start_of(span, at).label("start")] if span else []
    columns += [table.c[name] for name in names]
    sums = [(sign * func.sum(table.c[name])).label(name) for name in _COUNTS]
    return select(*columns, *sums).where(at >= begin, at < end).group_by(*columns)


def _values(replica: str, row: UsageRow) -> dict[str, Any]:
    return {"replica": replica} | {name: getattr(row, name) for name in row.__slots__}


def _lock_in_order(connection: Connection, tenant: str, before: datetime) -> None:
    """Take a tenant's hours, and then its days, in the order of `_roll_up`: PostgreSQL deletes rows as they
    lie, and its days follow in that order at the commit, so that two might each wait for the other."""
    for table, at in ((usage_hours, "hour"), (usage_days, "day")):
        order = [table.c[name].collate("C") for name in _ORDER[:-1]]
        rows = select(table.c[at]).where(table.c.tenant == tenant, table.c[at] < before)
        taken = rows.order_by(*order, table.c[at]).with_for_update().subquery()
        connection.execute(select(func.count()).select_from(taken))


def _roll_up(connection: Connection, rows: Iterable[UsageRow]) -> None:
    """Add rows to their hours. Others may do so at the same time, so everybody takes hours in one order,
    which is one of days too."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        key = (row.tenant, row.key, row.task, row.outcome, _hour_of(row.at))
        counts = sums.setdefault(key, [0, 0, 0, 0])
        for place, count in enumerate((1, row.tokens_in, row.tokens_out, row.work_units)):
            counts[place] += count
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    added = dialect.insert(usage_hours)
    more = {name: usage_hours.c[name] + added.excluded[name] for name in _COUNTS}
    connection.execute(
        added.on_conflict_do_update(index_elements=_KEYS, set_=more),
        [dict(zip(_ORDER + _COUNTS, (*key, *sums[key]), strict=True)) for key in sorted(sums)],
    )


def _check_groups(group_by: Sequence[str]) -> set[str]:
    for name in group_by:
        if name not in USAGE_GROUPS:
            message = f"Usage is not grouped by {shown(name)}; the groups are {', '.join(USAGE_GROUPS)}."
            raise InvalidError(message, field="group_by")
    spans = [name for name in _SPANS if name in group_by]
    if len(spans) > 1:
        raise InvalidError(f"Group by one of {' and '.join(spans)}, not both.", field="group_by")
    return set(group_by)


def _start_of(span: str, at: Column[datetime]) -> Any:
    """The beginning of an hour's or a day's span. Months are made of days, as SQL's dates differ."""
    if span == "hour" or at is usage_days.c.day:
        return at
    hour = type_coerce(at, BigInteger)
    return type_coerce(hour - hour % literal_column(str(_DAY_MICROSECONDS)), at.type)


def _sum_of(row: Any) -> UsageSum:
    its = row._mapping
    keys = (its.get(name) for name in ("start", "tenant", "key", "task", "outcome"))
    return UsageSum(*keys, *(int(its[name]) for name in _COUNTS))


def _months(rows: Iterable[Any]) -> list[UsageSum]:
    """The sums of days, as those of months, in the same order."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for row in rows:
        day = _sum_of(row)
        assert day.start is not None
        key = (month_of(day.start), day.tenant, day.key, day.task, day.outcome)
        counts = sums.setdefault(key, [0, 0, 0, 0])
        for place, name in enumerate(_COUNTS):
            counts[place] += getattr(day, name)
    in_order = sorted(sums, key=lambda key: tuple(part or "" for part in key[1:]))
    in_order.sort(key=lambda key: key[0])
    return [UsageSum(*key, *sums[key]) for key in in_order]
