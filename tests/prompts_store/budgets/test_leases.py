"""Budgets in the database: what is leased is taken once, comes back, expires, and lasts."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from prompts_store import PromptStore
from prompts_store.budgets import leases
from prompts_store.budgets.leases import KEPT, LEASE_SECONDS
from prompts_store.budgets.records import LeaseAnswer, LeaseAsk
from prompts_store.database import sqlite
from prompts_store.errors import InvalidError
from prompts_store.testing import FakeClock
from tests.prompts_store.usage.usage_rows import REPLICA, row

ONE, TWO = "1" * 16, "2" * 16


def asked(store: PromptStore, replica: str, limit: str, most: int | None, **given: Any) -> LeaseAnswer:
    ask = LeaseAsk("acme", given.pop("key", ""), limit, most, **({"held": 0} | given))
    return store.lease_budgets(replica, [ask])[0]


def test_a_minute_refills_and_takes_back(store: PromptStore, clock: FakeClock) -> None:
    limit = ("per_minute.requests", 60)
    assert asked(store, ONE, *limit, need=40).granted == 40
    two = asked(store, TWO, *limit, need=40)
    assert (two.granted, two.free, two.others) == (20, 0, 1)
    assert two.full_in_us == 60_000_000
    clock.advance(5)
    assert asked(store, TWO, *limit, held=20, need=9).granted == 5
    assert asked(store, ONE, *limit, back=40, need=50).granted == 40, "what one gives back another can have"
    clock.advance(3600)
    assert asked(store, TWO, *limit, need=100).granted == 60


def test_who_leases_budgets_is_known_while_a_lease_lasts(store: PromptStore, clock: FakeClock) -> None:
    assert store.budget_holders() == []
    asked(store, ONE, "per_minute.requests", 60, need=4)
    asked(store, ONE, "per_month.tokens", 60, need=4)
    clock.advance(5)
    asked(store, TWO, "per_minute.requests", 60, need=4)
    one, two = store.budget_holders()
    assert (one.name, one.leases, two.name, two.leases) == (ONE, 2, TWO, 1)
    assert two.expires_at == clock() + timedelta(seconds=LEASE_SECONDS)
    clock.advance(LEASE_SECONDS - 5)
    assert [each.name for each in store.budget_holders()] == [TWO]


def test_no_more_than_half_is_leased_ahead(store: PromptStore) -> None:
    limit = ("per_minute.tokens", 1000)
    assert asked(store, ONE, *limit, need=10, ahead=900).granted == 500
    assert asked(store, TWO, *limit, need=10, ahead=50).granted == 60
    assert asked(store, TWO, *limit, held=60, need=430, ahead=50).granted == 430


def test_few_first_leases_wait_for_the_write_ahead_log_to_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tenants and keys have limits a minute and a month. The control has SQLite's own length of the log."""

    def copied(folder: Path) -> int:
        count, limits = (
            0,
            ("per_minute.requests", "per_minute.tokens", "per_month.requests", "per_month.tokens"),
        )
        with closing(PromptStore.open(folder)) as store:
            before = (folder / "chorus.db").stat().st_mtime_ns
            for n in range(350):
                asks = [
                    LeaseAsk(f"tenant{n}", key, limit, 10**6, 0) for key in ("", f"{n}") for limit in limits
                ]
                store.lease_budgets(ONE, asks)
                after = (folder / "chorus.db").stat().st_mtime_ns
                count, before = count + (after != before), after
        return count

    assert copied(tmp_path / "long") == 0
    monkeypatch.setattr(sqlite, "_LOG_PAGES", 1_000)
    assert copied(tmp_path / "control") >= 2


def test_a_month_lasts_begins_anew_and_comes_back(store: PromptStore, clock: FakeClock) -> None:
    limit = ("per_month.tokens", 100)
    first = asked(store, ONE, *limit, need=30)
    assert (first.granted, first.used) == (30, 30)
    spent = asked(store, ONE, *limit, held=10)
    assert (spent.used, spent.free) == (30, 70)
    two = asked(store, TWO, *limit, need=80)
    assert (two.granted, two.used) == (70, 90), "what another has leased is not spent"
    clock.advance(LEASE_SECONDS - 1)
    asked(store, TWO, *limit, held=70)
    clock.advance(2)  # one died with 10; what it had spent stays spent
    assert asked(store, TWO, *limit, held=0, need=50).granted == 10
    clock.advance(32 * 86_400)
    assert asked(store, TWO, *limit, need=50).used == 50
    assert asked(store, ONE, *limit, back=-70).used == 70, "what was spent without a lease counts too"


def test_a_month_begins_with_what_was_used(store: PromptStore, clock: FakeClock) -> None:
    now = clock()
    rows = [row(1, now), row(2, now, key="key-2"), row(3, now - timedelta(days=40)), row(4, now, "other")]
    store.record_usage(REPLICA, rows)
    for unit, used in (("requests", 2), ("tokens", 20), ("work_units", 20)):
        assert asked(store, ONE, f"per_month.{unit}", None).used == used
        assert asked(store, ONE, f"per_month.{unit}", 50, key="key-2").used == used // 2


@pytest.mark.parametrize("limit", ["in_flight.requests", "queued.work_units"])
def test_places_are_what_processes_hold(store: PromptStore, clock: FakeClock, limit: str) -> None:
    assert asked(store, ONE, limit, 10, need=6).granted == 6
    assert asked(store, TWO, limit, 10, need=6).granted == 4
    assert asked(store, ONE, limit, 10, held=2).free == 4
    assert asked(store, TWO, limit, 10, held=4, need=6).granted == 4
    clock.advance(LEASE_SECONDS - 1)
    assert asked(store, TWO, limit, 10, held=8).free == 0
    clock.advance(2)  # the one has died
    assert asked(store, TWO, limit, 10, held=8, need=2).granted == 2


def test_budgets_of_others_are_apart(store: PromptStore) -> None:
    asks = [
        LeaseAsk(tenant, key, limit, 10, 0, need=10)
        for tenant in ("acme", "other")
        for key in ("", "key-1")
        for limit in ("per_minute.requests", "per_minute.tokens", "in_flight.requests", "per_month.tokens")
    ]
    assert [answer.granted for answer in store.lease_budgets(ONE, asks)] == [10] * 16
    assert store.drop_budgets_of("acme") == 14
    again = store.lease_budgets(ONE, asks)
    assert [answer.granted for answer in again] == [10] * 8 + [0, 0, 10, 0] * 2


def test_a_clock_that_is_far_ahead_takes_no_more_than_a_minute(store: PromptStore, clock: FakeClock) -> None:
    limit = ("per_minute.requests", 60)
    clock.advance(3600)
    assert asked(store, TWO, *limit, need=60).granted == 60
    clock.advance(-3600)
    assert asked(store, ONE, *limit, need=60).granted == 0
    clock.advance(30)
    assert asked(store, ONE, *limit, need=60).granted == 30


def test_nobody_remembers_them_for_ever(store: PromptStore, clock: FakeClock) -> None:
    for limit in ("per_minute.requests", "per_month.requests", "in_flight.requests"):
        asked(store, ONE, limit, 10, need=3)
    assert store.drop_budgets() == 0
    clock.advance(KEPT.total_seconds() + 60)
    assert store.drop_budgets() == 5


def test_a_deleted_tenants_budgets_go(store: PromptStore, clock: FakeClock) -> None:
    store.create_tenant("acme")
    asked(store, ONE, "per_month.requests", 10, need=3)
    store.delete_tenant("acme", grace_seconds=0)
    store.purge_tenants()
    assert store.drop_budgets_of("acme") == 0


def test_a_name_that_is_none() -> None:
    with pytest.raises(InvalidError, match="not a limit"):
        LeaseAsk("acme", "", "per_year.requests", 1, 0)


def test_the_database_servers_clock_counts_for_all(
    store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is no test's: a process whose own is an hour wrong takes and expires like the others."""
    late = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setattr(leases, "utc_now", lambda: late)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1800.0)  # none is over because a machine was busy
    if store._database.embedded:
        pytest.skip("processes on one file share a clock")
    store._clock = leases.utc_now
    assert asked(store, ONE, "in_flight.requests", 10, need=3).granted == 3
    store._clock = lambda: datetime.now(UTC)
    assert asked(store, TWO, "in_flight.requests", 10).free == 7
    store._clock = lambda: late  # control: by its own clock the lease would be over an hour too soon
    assert asked(store, ONE, "in_flight.requests", 10, held=3).free == 7
    store._clock = lambda: datetime.now(UTC)
    assert asked(store, TWO, "in_flight.requests", 10).free == 10


def test_a_lease_searches_through_no_table(disk_store: PromptStore, clock: FakeClock) -> None:
    """Whatever all others use: budgets are found by their index, and so is what goes."""
    asks = [
        LeaseAsk("acme", key, limit, 10, 0, need=3)
        for key in ("", "key-1")
        for limit in ("per_minute.requests", "in_flight.requests", "per_month.tokens", "per_month.requests")
    ]
    disk_store.lease_budgets(TWO, asks)
    clock.advance(LEASE_SECONDS + 1)
    sent: list[tuple[str, Any]] = []

    def note(connection: object, cursor: Any, statement: str, parameters: Any, *rest: object) -> None:
        first = parameters[0] if isinstance(parameters, list) else parameters
        sent.append((statement, first))

    engine = disk_store._database.engine
    event.listen(engine, "before_cursor_execute", note)
    disk_store.lease_budgets(ONE, asks)
    event.remove(engine, "before_cursor_execute", note)
    changed = [text.split()[0] for text, _ in sent]
    assert changed.count("SELECT") == 2 and {"INSERT", "UPDATE", "DELETE"} <= set(changed)

    def plan(statement: str, parameters: Any = ()) -> str:
        with engine.connect() as connection:
            return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all())

    for statement, parameters in sent:
        if not statement.startswith(("BEGIN", "INSERT")):
            assert "SCAN" not in plan(statement, parameters), statement
    two = "(VALUES ('a', '', 'x'), ('b', '', 'x'))"
    control = f'SELECT * FROM budget_uses WHERE (tenant, key, "limit") IN {two}'
    assert "SCAN budget_uses" in plan(control), "what SQLite makes of a list of tuples"


def test_a_lease_is_kept_without_waiting_for_the_disk(disk_store: PromptStore) -> None:
    """What a power cut may take is a second of leases; all else is on the disk when its call returns."""
    modes: list[tuple[str, int]] = []

    def note(connection: object, cursor: Any, statement: str, *rest: object) -> None:
        if statement.startswith("INSERT"):
            (mode,) = cursor.connection.execute("PRAGMA synchronous").fetchone()
            modes.append((statement.split()[2], mode))

    engine, (normal, full) = disk_store._database.engine, (1, 2)
    event.listen(engine, "before_cursor_execute", note)
    for _ in range(2):
        asked(disk_store, ONE, "per_minute.requests", 10, need=1)
        asked(disk_store, ONE, "per_minute.tokens", 10, need=1)
        disk_store.create_tenant(f"t{len(modes)}")
    event.remove(engine, "before_cursor_execute", note)
    assert {mode for table, mode in modes if table.startswith("budget")} == {normal}
    assert {mode for table, mode in modes if not table.startswith("budget")} == {full}
