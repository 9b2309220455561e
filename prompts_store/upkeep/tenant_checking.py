"""The part of the check for tenants: their keys, limits, counts, usage, and the change feed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Subquery,
    Text,
    and_,
    cast,
    func,
    literal_column,
    or_,
    select,
    type_coerce,
    union_all,
)

from prompts_store.database.job_tables import files
from prompts_store.database.tables import tasks, versions
from prompts_store.database.tenant_tables import changes, keys, stored_use, tenants
from prompts_store.database.usage_tables import usage, usage_days, usage_hours
from prompts_store.months import month_of
from prompts_store.tenants import stored
from prompts_store.tenants.limits import KeyLimits, TenantLimits
from prompts_store.upkeep.check_report import Problem

_HOUR_MICROSECONDS = 3_600_000_000
_DAY_MICROSECONDS = 24 * _HOUR_MICROSECONDS
_GROUP = ("tenant", "key", "task", "outcome")
_COUNTS = ("items", "tokens_in", "tokens_out", "work_units")


def tenant_problems(connection: Connection, *, repair: bool, now: datetime) -> Iterator[Problem]:
    """What is wrong with the tables of tenants. A repair counts again what they keep."""
    yield from _key_problems(connection)
    yield from _limit_problems(connection)
    yield from _feed_problems(connection)
    yield from _usage_problems(connection, now)
    yield from day_problems(connection)
    yield from _use_problems(connection, repair)


def _key_problems(connection: Connection) -> Iterator[Problem]:
    query = select(keys.c.id, keys.c.tenant).outerjoin(tenants, tenants.c.name == keys.c.tenant)
    for row in connection.execute(query.where(tenants.c.name.is_(None)).order_by(keys.c.number)):
        yield Problem("lost_key", row.id, f"its tenant {row.tenant} has no row")


def _limit_problems(connection: Connection) -> Iterator[Problem]:
    for table, name, model in ((tenants, tenants.c.name, TenantLimits), (keys, keys.c.id, KeyLimits)):
        # As text, because what is no JSON cannot be read as that.
        for where, text in connection.execute(select(name, cast(table.c.limits, Text)).order_by(name)):
            try:
                model.read(json.loads(text))
            except ValueError:
                yield Problem("wrong_limits", where, "its limits cannot be read")


def _feed_problems(connection: Connection) -> Iterator[Problem]:
    query = select(func.count(), func.min(changes.c.number), func.max(changes.c.number))
    number, first, last = connection.execute(query).one()
    if number and last - first + 1 != number:
        missing = last - first + 1 - number
        yield Problem(
            "wrong_changes", f"changes {first} to {last}", f"{missing} of their numbers are missing"
        )


def _usage_problems(connection: Connection, now: datetime) -> Iterator[Problem]:
    """Rows that their hours do not have; and hours of this month, of which no row was dropped yet, that the
    rows do not add up to."""
    added = _hours_of_rows()
    same = and_(
        added.c.hour == type_coerce(usage_hours.c.hour, BigInteger),
        *(added.c[name] == usage_hours.c[name] for name in _GROUP),
    )
    lost = or_(usage_hours.c.tenant.is_(None), *(added.c[name] > usage_hours.c[name] for name in _COUNTS))
    kept = select(tenants.c.name).where(tenants.c.status == "deleted")
    whole = and_(usage_hours.c.hour >= month_of(now), usage_hours.c.tenant.not_in(kept))
    more = or_(added.c.tenant.is_(None), *(added.c[name] < usage_hours.c[name] for name in _COUNTS))
    for side, query, message in (
        (added, select(added.c.tenant, func.count().label("hours")).outerjoin(usage_hours, same).where(lost),
         "rows of usage are missing in the sums of {} hours"),
        (usage_hours, select(usage_hours.c.tenant, func.count().label("hours")).outerjoin(added, same)
         .where(whole, more), "{} hours of this month have more than the rows of usage add up to"),
    ):  # fmt: skip
        for row in connection.execute(query.group_by(side.c.tenant).order_by(side.c.tenant)):
            yield Problem("wrong_usage", row.tenant, message.format(row.hours))


def day_problems(connection: Connection) -> Iterator[Problem]:
    """Days of usage that are not the sums of their hours, as the database's triggers keep them."""
    hour = type_coerce(usage_hours.c.hour, BigInteger)
    day = (hour - hour % literal_column(str(_DAY_MICROSECONDS))).label("day")
    both = union_all(
        select(
            type_coerce(usage_days.c.day, BigInteger).label("day"),
            *(usage_days.c[name] for name in (*_GROUP, *_COUNTS)),
        ),
        select(
            day,
            *(usage_hours.c[name] for name in _GROUP),
            *((-func.sum(usage_hours.c[name])).label(name) for name in _COUNTS),
        ).group_by(day, *(usage_hours.c[name] for name in _GROUP)),
    ).subquery()
    wrong = (
        select(both.c.tenant)
        .group_by(both.c.day, *(both.c[name] for name in _GROUP))
        .having(or_(*(func.sum(both.c[name]) != 0 for name in _COUNTS)))
        .subquery()
    )
    query = select(wrong.c.tenant, func.count().label("days")).group_by(wrong.c.tenant)
    for row in connection.execute(query.order_by(wrong.c.tenant)):
        yield Problem("wrong_usage", row.tenant, f"{row.days} days are not the sums of their hours")


def _hours_of_rows() -> Subquery:
    at = type_coerce(usage.c.at, BigInteger)
    hour = (at - at % literal_column(str(_HOUR_MICROSECONDS))).label("hour")
    group = [hour, *(usage.c[name] for name in _GROUP)]
    sums = [func.count().label("items")]
    sums += [func.sum(usage.c[name]).label(name) for name in _COUNTS if name != "items"]
    return select(*group, *sums).group_by(*group).subquery()


def _use_problems(connection: Connection, repair: bool) -> Iterator[Problem]:
    true = _counted(connection)
    said = {
        row.tenant: {"prompts": row.prompts, "prompt_bytes": row.prompt_bytes, "file_bytes": row.file_bytes}
        for row in connection.execute(select(stored_use))
    }
    for tenant in sorted(true.keys() | said.keys()):
        ours, theirs = true.get(tenant, _NOTHING), said.get(tenant, _NOTHING)
        wrong = {name: number - theirs[name] for name, number in ours.items() if number != theirs[name]}
        if wrong:
            if repair:
                stored.add(connection, tenant, **wrong)
            message = f"what it keeps is counted as {_shown(theirs)}, but is {_shown(ours)}"
            yield Problem("wrong_use", tenant, message, repaired=repair)


_NOTHING = {"prompts": 0, "prompt_bytes": 0, "file_bytes": 0}


def _counted(connection: Connection) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    values = func.sum(cast(versions.c.length, BigInteger) * versions.c.width)
    of_versions = (
        select(tasks.c.tenant, func.count().label("prompts"), values.label("numbers"))
        .join(versions, versions.c.task_id == tasks.c.id)
        .where(versions.c.deleted_at.is_(None))
        .group_by(tasks.c.tenant)
    )
    for row in connection.execute(of_versions):
        size = stored.VALUE_BYTES * int(row.numbers)
        found[row.tenant] = {**_NOTHING, "prompts": row.prompts, "prompt_bytes": size}
    of_files = select(files.c.tenant, func.sum(files.c.size_bytes)).where(files.c.deleted_at.is_(None))
    for tenant, size in connection.execute(of_files.group_by(files.c.tenant)):
        found.setdefault(tenant, dict(_NOTHING))["file_bytes"] = int(size)
    return found


def _shown(kept: dict[str, Any]) -> str:
    return (
        f"{kept['prompts']} prompts of {kept['prompt_bytes']} bytes and {kept['file_bytes']} bytes of files"
    )
