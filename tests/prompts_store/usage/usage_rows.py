"""Rows of usage for tests, and what they add up to when counted by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.usage_tables import usage, usage_hours
from prompts_store.upkeep.tenant_checking import day_problems
from prompts_store.usage.records import USAGE_OUTCOMES, UsageRow

REPLICA = "0123456789abcdef"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
COUNTS = ("tokens_in", "tokens_out", "work_units")


def row(sequence: int, at: datetime = BEGIN, tenant: str = "acme", **given: Any) -> UsageRow:
    """A row; a `UsageRow` has what is not given."""
    usual: dict[str, Any] = {"key": "key-1", "task": "acme/sst2", "digest": "d" * 64, "outcome": "answered"}
    usual |= {"tokens_in": 7, "tokens_out": 3, "work_units": 10, "request_id": "req_1", "item": 0}
    return UsageRow(sequence, at, tenant, **(usual | given))


def random_rows(seed: int, count: int, spread: timedelta = timedelta(days=70)) -> list[UsageRow]:
    """Rows of few tenants, keys and tasks, over a time from `BEGIN` on."""
    chance = random.Random(seed)
    return [
        row(
            sequence,
            BEGIN + chance.random() * spread,
            chance.choice(("acme", "other")),
            key=chance.choice(("key-1", "key-2", "")),
            task=chance.choice(("acme/sst2", "acme/trec", "")),
            outcome=chance.choice(USAGE_OUTCOMES),
            tokens_in=chance.randrange(100),
            tokens_out=chance.randrange(100),
            work_units=chance.randrange(200),
        )
        for sequence in range(count)
    ]


def added(rows: Iterable[UsageRow], *names: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Items, tokens in and out and work units of rows, by some of their fields; counted here, not there."""
    sums: dict[tuple[Any, ...], Counter[int]] = {}
    for each in rows:
        counts = sums.setdefault(tuple(getattr(each, name) for name in names), Counter())
        for place, count in enumerate((1, *(getattr(each, name) for name in COUNTS))):
            counts[place] += count
    return {key: tuple(counts[place] for place in range(4)) for key, counts in sums.items()}


def in_tables(store: PromptStore) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Items, tokens and work units of all rows, and of all hours; days have what their hours have."""
    rows = [func.count(), *(func.coalesce(func.sum(usage.c[name]), 0) for name in COUNTS)]
    hours = [func.coalesce(func.sum(usage_hours.c[name]), 0) for name in ("items", *COUNTS)]
    with store._database.read(EVERY_TENANT) as connection:
        one = connection.execute(select(*rows).select_from(usage)).one()
        other = connection.execute(select(*hours)).one()
        assert not list(day_problems(connection))
    return tuple(map(int, one)), tuple(map(int, other))
