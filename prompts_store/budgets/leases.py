"""Budgets shared by the processes of one database: each leases what it will spend in the next second.

Of a minute (a bucket) and of a month (a count), a lease is taken out when it is given, so that it can be
spent without a query; what a process does not need it gives back. Of what is in flight or queued, the leases
themselves are the count. The lease of a process that died expires: what it had of a month comes back, and
what it had in flight is over. Of a minute nothing comes back, as it refills by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, text, update

from prompts_store.base import StoreBase, utc_now
from prompts_store.budgets.bucket import MINUTE_US, Bucket
from prompts_store.budgets.records import LeaseAnswer, LeaseAsk
from prompts_store.database import EVERY_TENANT
from prompts_store.database.budget_tables import budget_leases, budget_uses
from prompts_store.database.usage_tables import usage_hours
from prompts_store.months import month_of
from prompts_store.records import LeaseHolder

LEASE_SECONDS = 10.0
"""After this time without a word from its process a lease is over."""

KEPT = timedelta(days=62)
"""How long a budget that nobody asks for is remembered."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_AT_ONCE = 64
"""Budgets that are looked up together: by their tenants and their keys, each with each."""

_COUNTED = {
    "requests": usage_hours.c["items"],
    "tokens": usage_hours.c.tokens_in + usage_hours.c.tokens_out,
    "work_units": usage_hours.c.work_units,
}
_COUNTS = [func.coalesce(func.sum(column), 0).label(unit) for unit, column in _COUNTED.items()]

# Made once: SQLAlchemy takes longer to put a statement together than SQLite to execute it. They search by the
# first columns of their indexes: SQLite would go through the whole table for a list of tuples.
_USES, _LEASES = (
    select(table).where(
        table.c.tenant.in_(bindparam("tenants", expanding=True)),
        table.c.key.in_(bindparam("keys", expanding=True)),
    )
    for table in (budget_uses, budget_leases)
)
_USED_BY_TENANT = select(*_COUNTS).where(
    usage_hours.c.tenant == bindparam("tenant"),
    usage_hours.c.hour.between(bindparam("since"), bindparam("until")),
)
_USED_BY_KEY = _USED_BY_TENANT.where(usage_hours.c.key == bindparam("key"))

_Name = tuple[str, str, str]


@dataclass(slots=True)
class _Budget:
    """One budget inside a transaction.

    Attributes:
        moment, used: as in its row; None and 0 where there is no row yet.
        leases: amount by replica, of those that are not over.
        over: replicas whose leases are.
    """

    moment: datetime | None = None
    used: int = 0
    stored: bool = False
    leases: dict[str, int] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)


class BudgetLeases(StoreBase):
    """Leases of what tenants and keys may use."""

    def lease_budgets(
        self, replica: str, asks: Sequence[LeaseAsk], *, patience_seconds: float | None = None
    ) -> list[LeaseAnswer]:
        """Give back, take and lease, for as many budgets as there are asks, in one transaction. Requests wait
        for it, so it does not wait for the disk: a power cut, or a crash of PostgreSQL's server, takes what
        was leased since anything else was written, which usage is every second.

        Args:
            replica: 16 hexadecimal digits, drawn by the process.
            asks: at most one for each budget.
            patience_seconds: how long to wait for the publish lock.

        Raises:
            StoreError: nothing was changed.
        """
        answers: list[LeaseAnswer] = []
        with self._database.write(EVERY_TENANT, patience_seconds, losable=True) as connection:
            now = self._moment(connection)
            before = _UsedBefore(connection, now)
            for start in range(0, len(asks), _AT_ONCE):
                some = asks[start : start + _AT_ONCE]
                found = _found(connection, some, now)
                held: dict[_Name, tuple[LeaseAsk, int]] = {}
                for ask in some:
                    budget = found[_name(ask)]
                    answer = _answer(budget, replica, ask, now, before)
                    answers.append(answer)
                    held[_name(ask)] = (ask, ask.held + answer.granted)
                _write(connection, found, replica, held, now)
        return answers

    def drop_budgets(self) -> int:
        """Forget budgets that nobody has asked for in a long time, and leases of processes that died long
        ago. Returns how many rows went."""
        before = self._clock() - KEPT
        with self._database.write(EVERY_TENANT) as connection:
            old = delete(budget_leases).where(budget_leases.c.expires_at < before)
            dropped: int = connection.execute(old).rowcount
            return (
                dropped
                + connection.execute(delete(budget_uses).where(budget_uses.c.moment < before)).rowcount
            )

    def drop_budgets_of(self, tenant: str) -> int:
        """Forget a tenant's budgets and its keys'. Returns how many rows went."""
        with self._database.write(tenant) as connection:
            return sum(
                connection.execute(delete(table).where(table.c.tenant == tenant)).rowcount
                for table in (budget_leases, budget_uses)
            )

    def budget_holders(self) -> list[LeaseHolder]:
        """Which processes lease budgets, of all tenants, by name."""
        name, expires = budget_leases.c.replica, budget_leases.c.expires_at
        with self._database.read(EVERY_TENANT) as connection:
            query = (
                select(name, func.count(), func.max(expires))
                .where(expires > self._moment(connection))
                .group_by(name)
                .order_by(name)
            )
            return [LeaseHolder(*row) for row in connection.execute(query)]

    def _moment(self, connection: Connection) -> datetime:
        """Now, by the database server's clock: its processes' own may differ. Those on one SQLite file
        share a clock anyway; a test's own is taken as it is."""
        if self._database.embedded or self._clock is not utc_now:
            return self._clock()
        now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return now.astimezone(UTC)


def _name(ask: LeaseAsk) -> _Name:
    return ask.tenant, ask.key, ask.limit


def _found(connection: Connection, asks: Sequence[LeaseAsk], now: datetime) -> dict[_Name, _Budget]:
    found = {_name(ask): _Budget() for ask in asks}
    names = {"tenants": sorted({ask.tenant for ask in asks}), "keys": sorted({ask.key for ask in asks})}
    for row in connection.execute(_USES, names):
        budget = found.get((row.tenant, row.key, row.limit))
        if budget is None:
            continue
        budget.moment, budget.used, budget.stored = row.moment, row.used, True
    month = month_of(now)
    for row in connection.execute(_LEASES, names):
        budget = found.get((row.tenant, row.key, row.limit))
        if budget is None:
            continue
        monthly = row.limit.startswith("per_month")
        if monthly and row.window != month:  # what was left of last month is worth nothing
            budget.over.append(row.replica)
        elif row.expires_at <= now:
            budget.over.append(row.replica)
            if monthly and budget.moment == month:
                budget.used -= row.amount
        else:
            budget.leases[row.replica] = row.amount
    return found


def _answer(
    budget: _Budget, replica: str, ask: LeaseAsk, now: datetime, before: Callable[[LeaseAsk], int]
) -> LeaseAnswer:
    """
    Args:
        before: what was used in this month before anybody counted it here.
    """
    others = {name: amount for name, amount in budget.leases.items() if name != replica}
    if ask.window == "per_minute":
        assert ask.most is not None
        bucket, us = Bucket(ask.most), (now - _EPOCH) // _US
        full_at = us if budget.moment is None else (budget.moment - _EPOCH) // _US
        if budget.used and budget.used != ask.most:  # the limit was changed: what was spent stays spent
            spent = max(0, full_at - us) * budget.used // MINUTE_US
            full_at = bucket.take(us, us, spent)
        budget.used = ask.most
        if full_at > us + 2 * MINUTE_US:  # only a clock that is wrong puts it there
            full_at = us + MINUTE_US
        if ask.back > 0:
            full_at = bucket.give(full_at, ask.back)
        elif ask.back < 0:
            full_at = bucket.take(full_at, us, -ask.back)
        granted = _granted(bucket.free(full_at, us), ask)
        if granted:
            full_at = bucket.take(full_at, us, granted)
        budget.moment = _EPOCH + max(full_at, us) * _US
        free, full_in = bucket.free(full_at, us), max(0, full_at - us)
        return LeaseAnswer(granted, free, full_in_us=full_in, others=len(others))
    if ask.window == "per_month":
        month = month_of(now)
        if budget.moment != month:
            budget.moment, budget.used = month, before(ask)
            budget.leases.clear()
        if replica not in budget.leases:  # it expired, and what it had was given back
            budget.used += ask.held
        budget.used = max(0, budget.used - ask.back)
        free = 2**53 if ask.most is None else max(0, ask.most - budget.used)
        granted = _granted(free, ask)
        budget.used += granted
        unspent = sum(others.values())
        return LeaseAnswer(granted, free - granted, used=max(0, budget.used - unspent), others=len(others))
    assert ask.most is not None
    free = max(0, ask.most - ask.held - sum(others.values()))
    granted = _granted(free, ask)
    return LeaseAnswer(granted, free - granted, others=len(others))


def _granted(free: int, ask: LeaseAsk) -> int:
    """What is needed, as far as there is; and besides that, never more than half of what is there."""
    return min(free, max(ask.need, min(ask.need + ask.ahead, free // 2)))


class _UsedBefore:
    """What was used in this month before anybody counted it here. A tenant or key is looked up once."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection, self._now = connection, now
        self._found: dict[tuple[str, str], RowMapping] = {}

    def __call__(self, ask: LeaseAsk) -> int:
        """How much of the ask's unit."""
        name = ask.tenant, ask.key
        if name not in self._found:
            mine = {"tenant": ask.tenant, "since": month_of(self._now), "until": self._now}
            query, mine = (_USED_BY_KEY, mine | {"key": ask.key}) if ask.key else (_USED_BY_TENANT, mine)
            self._found[name] = self._connection.execute(query, mine).mappings().one()
        return int(self._found[name][ask.limit.partition(".")[2]])


def _write(
    connection: Connection,
    found: dict[_Name, _Budget],
    replica: str,
    held: dict[_Name, tuple[LeaseAsk, int]],
    now: datetime,
) -> None:
    uses = {name: budget for name, budget in found.items() if budget.moment is not None}
    _put(
        connection,
        budget_uses,
        [_columns(name) | {"moment": each.moment, "used": each.used} for name, each in uses.items()],
        {name for name, budget in uses.items() if budget.stored},
        ("moment", "used"),
    )
    gone = [(*name, each) for name, budget in found.items() for each in budget.over]
    gone += [(*name, replica) for name, (_, amount) in held.items() if amount <= 0]
    if gone:
        key = [*budget_leases.primary_key]
        these = [column == bindparam(f"its_{column.name}") for column in key]
        names = [{f"its_{column.name}": part for column, part in zip(key, one, strict=True)} for one in gone]
        connection.execute(delete(budget_leases).where(*these), names)
    rows, known = [], set()
    for name, (ask, amount) in held.items():
        if amount <= 0:
            continue
        window = month_of(now) if ask.window == "per_month" else _EPOCH
        expires_at = now + timedelta(seconds=LEASE_SECONDS)
        rows.append(
            _columns(name)
            | {"replica": replica, "window": window, "amount": amount, "expires_at": expires_at}
        )
        if replica in found[name].leases:
            known.add(name)
    _put(connection, budget_leases, rows, known, ("window", "amount", "expires_at"))


def _put(
    connection: Connection,
    table: Any,
    rows: Iterable[dict[str, Any]],
    known: set[_Name],
    values: Sequence[str],
) -> None:
    """Update the rows that are there, insert the others."""
    old: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    for row in rows:
        (old if (row["tenant"], row["key"], row["limit"]) in known else new).append(row)
    if new:
        connection.execute(insert(table), new)
    if old:
        keys = [column for column in table.primary_key if column.name in old[0]]
        these = [column == bindparam(f"its_{column.name}") for column in keys]
        changed = update(table).where(*these).values({name: bindparam(f"new_{name}") for name in values})
        connection.execute(
            changed,
            [
                {f"its_{column.name}": row[column.name] for column in keys}
                | {f"new_{name}": row[name] for name in values}
                for row in old
            ],
        )


def _columns(name: _Name) -> dict[str, str]:
    return dict(zip(("tenant", "key", "limit"), name, strict=True))
