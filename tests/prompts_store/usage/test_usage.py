"""Rows are counted once, whatever is written again, and hours, days and months add up to them."""

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.database.usage_tables import usage_days
from prompts_store.errors import InvalidError, StoreError
from prompts_store.months import month_of
from prompts_store.tenants.records import Retention
from prompts_store.testing import FakeClock
from prompts_store.usage import usage as usage_module
from prompts_store.usage.records import USAGE_GROUPS, UsageRow, UsageSum
from tests.postgres_server import WAITING_FOR_ROWS, PostgresServer, as_superuser
from tests.prompts_store.usage.usage_rows import BEGIN, REPLICA, added, in_tables, random_rows, row

END = BEGIN + timedelta(days=400)
STARTS = {
    "hour": lambda at: at.replace(minute=0, second=0, microsecond=0),
    "day": lambda at: at.replace(hour=0, minute=0, second=0, microsecond=0),
    "month": month_of,
}


def everything(store: PromptStore, *groups: str, tenant: str | None = None) -> list[UsageSum]:
    return store.usage(BEGIN, END, tenant=tenant, group_by=groups)


def by_hand(rows: list[UsageRow], groups: tuple[str, ...]) -> dict[tuple[Any, ...], tuple[int, ...]]:
    span = next((name for name in groups if name in STARTS), None)
    names = [name for name in ("tenant", "key", "task", "outcome") if name in groups]
    if span is None:
        return added(rows, *names)
    found: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for start in {STARTS[span](each.at) for each in rows}:
        inside = [each for each in rows if STARTS[span](each.at) == start]
        found |= {(start, *key): counts for key, counts in added(inside, *names).items()}
    return found


def test_rows_add_up_in_every_group(store: PromptStore) -> None:
    rows = random_rows(1, 300)
    for at in range(0, 300, 50):
        assert store.record_usage(REPLICA, rows[at : at + 50]) == 50
    for size in range(4):
        for groups in combinations(USAGE_GROUPS, size):
            if sum(name in STARTS for name in groups) > 1:
                continue
            found = everything(store, *groups)
            keys = [
                tuple(part for part in (s.start, s.tenant, s.key, s.task, s.outcome) if part is not None)
                for s in found
            ]
            counts = [(s.items, s.tokens_in, s.tokens_out, s.work_units) for s in found]
            assert dict(zip(keys, counts, strict=True)) == by_hand(rows, groups), groups
            assert keys == sorted(keys), "in order"


def test_the_largest_sums_and_those_of_some_tasks(store: PromptStore) -> None:
    """The control is all of them, which the tests above compare with the rows."""
    store.record_usage(REPLICA, random_rows(2, 300))
    for groups in ((), ("task",), ("tenant", "task", "key"), ("task", "day"), ("month", "task")):
        every = store.usage(BEGIN, END, tenant=None, group_by=groups)
        wanted = sorted(every, key=lambda each: -each.work_units)
        for top in (1, 3, 1000):
            assert store.usage(BEGIN, END, tenant=None, group_by=groups, top=top) == wanted[:top], groups
    by_task = {each.task: each for each in store.usage(BEGIN, END, tenant="acme", group_by=["task"])}
    for tasks in (["acme/sst2"], ["acme/trec", "acme/sst2", "nobody/knows"], []):
        found = store.usage(BEGIN, END, tenant="acme", group_by=["task"], tasks=tasks)
        assert found == [by_task[name] for name in sorted(tasks) if name in by_task]
    assert store.usage(BEGIN, END, tenant="other", tasks=["acme/trec"], top=5)[0].items > 0


def test_days_add_up_to_what_their_hours_do(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """For random times and groups. In the control, without the days, whole days have nothing."""
    rows = [each for each in random_rows(6, 400, timedelta(days=9)) if each.tenant == "acme"]
    store.record_usage(REPLICA, rows)
    chance, asked = random.Random(6), []
    names = [name for name in USAGE_GROUPS if name not in STARTS]
    for number in range(80):
        first, last = sorted(chance.randrange(-30, 250) for _ in range(2))
        first -= 0 if number % 2 else first % 24
        groups = [*chance.sample(names, chance.randrange(3)), *chance.choice(((), ("day",), ("month",)))]
        asked.append((BEGIN + timedelta(hours=first), BEGIN + timedelta(hours=last), groups))

    def answers() -> list[list[UsageSum]]:
        return [store.usage(*ends, tenant="acme", group_by=groups) for *ends, groups in asked]

    with_days = answers()
    for (since, until, groups), found in zip(asked, with_days, strict=True):
        inside = [each for each in rows if since <= each.at < until]
        if found and groups:
            assert sum(each.items for each in found) == len(inside)
    with store._database.write(EVERY_TENANT) as connection:
        connection.execute(delete(usage_days))
    assert sum(found != before for found, before in zip(answers(), with_days, strict=True)) > 40, "control"
    monkeypatch.setattr(usage_module, "_of_days", lambda *_: None)
    assert answers() == with_days


@pytest.mark.parametrize("groups", [("day",), ("task",)])
def test_a_page_of_usage_reads_days_and_no_hour_of_them(
    disk_store: PromptStore, groups: tuple[str, ...]
) -> None:
    """From midnight until now, as the console asks. SQLite counts its own steps: hours would take many."""
    now = BEGIN + timedelta(days=3, hours=20, minutes=30)
    hours = [BEGIN + timedelta(hours=hour) for hour in range(93)]
    disk_store.record_usage(REPLICA, [row(number, at) for number, at in enumerate(hours)])

    def steps(task: list[str] | None) -> int:
        counted = 0

        def count() -> None:
            nonlocal counted
            counted += 1

        with disk_store._database.read("acme") as connection:
            driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(count, 1)
        found = disk_store.usage(BEGIN, now, tenant="acme", group_by=groups, tasks=task)
        driver.set_progress_handler(None, 0)
        assert sum(each.items for each in found) == 93
        return counted

    assert 4 * steps(None) < steps(["acme/sst2"]), "control: of some tasks, hours are read"


def test_a_row_written_again_counts_once(store: PromptStore) -> None:
    rows = random_rows(2, 60)
    assert store.record_usage(REPLICA, rows[:40]) == 40
    assert store.record_usage(REPLICA, rows[:40]) == 0
    assert store.record_usage(REPLICA, rows[20:] + rows[20:]) == 20
    assert in_tables(store) == (added(rows)[()], added(rows)[()])
    assert store.record_usage("f" * 16, rows[:1]) == 1, "another replica's first row is another row"


def test_nothing_is_no_row(store: PromptStore) -> None:
    assert store.record_usage(REPLICA, []) == 0
    assert everything(store) == [UsageSum(None, None, None, None, None, 0, 0, 0, 0)]
    assert everything(store, "task") == []


def test_a_tenant_is_told_its_own(store: PromptStore) -> None:
    rows = random_rows(3, 80)
    store.record_usage(REPLICA, rows)
    (mine,) = everything(store, tenant="acme")
    expected = added([each for each in rows if each.tenant == "acme"])[()]
    assert (mine.items, mine.tokens_in, mine.tokens_out, mine.work_units) == expected
    assert everything(store, "tenant", tenant="nobody") == []


def test_whole_hours_are_counted(store: PromptStore) -> None:
    times = [timedelta(0), timedelta(minutes=59, seconds=59), timedelta(hours=1), timedelta(hours=2)]
    store.record_usage(REPLICA, [row(number, BEGIN + time) for number, time in enumerate(times)])

    def items(since: timedelta, until: timedelta) -> int:
        (found,) = store.usage(BEGIN + since, BEGIN + until, tenant="acme")
        return found.items

    assert items(timedelta(0), timedelta(hours=1)) == 2
    assert items(timedelta(minutes=30), timedelta(hours=1, minutes=1)) == 3
    assert items(timedelta(hours=1), timedelta(hours=2)) == 1
    assert items(timedelta(hours=1), timedelta(hours=1)) == 0
    elsewhere = datetime(2026, 1, 1, 2, tzinfo=UTC).astimezone()
    assert store.usage(elsewhere, elsewhere + timedelta(hours=1), tenant="acme")[0].items == 1


def test_bad_questions_are_refused(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidError) as caught:
        everything(store, "week")
    assert caught.value.field == "group_by" and "week" in caught.value.message
    with pytest.raises(InvalidError, match="hour and day"):
        everything(store, "day", "hour")
    with pytest.raises(InvalidError) as caught:
        store.usage(END, BEGIN, tenant=None)
    assert caught.value.field == "to"
    for bad, field in ((datetime.min, "from"), (datetime.max, "to")):
        ends = (bad.replace(tzinfo=UTC), END) if field == "from" else (BEGIN, bad.replace(tzinfo=UTC))
        with pytest.raises(InvalidError) as caught:
            store.usage(*ends, tenant=None)
        assert caught.value.field == field
    store.record_usage(REPLICA, random_rows(4, 50))
    monkeypatch.setattr(usage_module, "MAX_SUMS", 3)
    assert len(everything(store, "month")) == 3
    for groups in (("day",), ("month", "task")):
        with pytest.raises(InvalidError) as caught:
            everything(store, *groups)
        assert caught.value.field == "group_by" and "3" in caught.value.message


def test_a_lock_is_not_waited_for_longer_than_said(disk_store: PromptStore) -> None:
    with disk_store._database.engine.connect() as other:
        other.connection.driver_connection.execute("BEGIN IMMEDIATE")  # type: ignore[union-attr]
        with pytest.raises(StoreError, match="locked"):
            disk_store.record_usage(REPLICA, [row(0)], patience_seconds=0.01)
        other.connection.driver_connection.execute("ROLLBACK")  # type: ignore[union-attr]
    assert disk_store.record_usage(REPLICA, [row(0)], patience_seconds=0.01) == 1


def test_whole_months_are_dropped(store: PromptStore, clock: FakeClock) -> None:
    """Now it is 1 January: rows are kept since 1 December, hours as long as each tenant wants."""
    store.create_tenant("acme", retention=Retention(usage_days=60))
    store.create_tenant("brief", retention=Retention(usage_days=1))
    months = [month_of(BEGIN - timedelta(days=30 * back)) for back in range(20)]
    rows = [
        row(number, month + timedelta(hours=hour), tenant)
        for number, (month, hour, tenant) in enumerate(
            (month, hour, tenant)
            for month in months
            for hour in (0, 27 * 24)
            for tenant in ("acme", "brief", "unknown")
        )
    ]
    store.record_usage(REPLICA, rows)
    assert store.drop_usage() > 0

    def kept(tenant: str) -> datetime | None:
        found = store.usage(months[-1], END, tenant=tenant, group_by=["month"])
        assert all(each.items == 2 for each in found), "no month in part"
        return found[0].start if found else None

    assert kept("acme") == datetime(2025, 11, 1, tzinfo=UTC)
    assert kept("brief") == datetime(2025, 12, 1, tzinfo=UTC)
    assert kept("unknown") == datetime(2024, 11, 1, tzinfo=UTC)
    single, _ = in_tables(store)
    recent = [each for each in rows if each.at >= datetime(2025, 12, 1, tzinfo=UTC)]
    assert single == added(recent)[()]
    assert store.drop_usage() == 0
    clock.advance(86_400 * 70)
    store.collect(grace_seconds=0)
    assert in_tables(store)[0][0] == 0, "a collection drops too"
    assert kept("brief") is None and kept("acme") == datetime(2026, 1, 1, tzinfo=UTC)


def test_many_rows_are_dropped_in_parts(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_module, "_AT_ONCE", 3)
    old = BEGIN - timedelta(days=300)
    store.record_usage(REPLICA, [row(number, old + timedelta(seconds=number // 5)) for number in range(23)])
    assert store.drop_usage() == 23
    assert in_tables(store)[0][0] == 0 and in_tables(store)[1][0] == 23


def test_a_deleted_tenants_usage_goes_with_the_rest(store: PromptStore, clock: FakeClock) -> None:
    store.create_tenant("acme")
    rows = random_rows(5, 40)
    store.record_usage(REPLICA, rows)
    store.delete_tenant("acme", grace_seconds=60)
    assert store.purge_tenants().usage == 0
    clock.advance(60)
    mine = [each for each in rows if each.tenant == "acme"]
    assert store.purge_tenants().usage == len(mine)
    others = added([each for each in rows if each.tenant != "acme"])[()]
    assert in_tables(store) == (others, others)


def test_usage_that_comes_while_a_deleted_tenants_is_dropped_goes_with_it(
    store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record_usage(REPLICA, [row(1)])
    drop_hours = store._drop_hours

    def another_comes(tenant: str, before: datetime) -> None:
        store.record_usage(REPLICA, [row(2)])
        drop_hours(tenant, before)

    monkeypatch.setattr(store, "_drop_hours", another_comes)
    assert store.drop_usage_of(row(1).tenant) == 2
    assert in_tables(store) == ((0,) * 4, (0,) * 4)


@pytest.fixture
def replicas(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[list[PromptStore]]:
    """Two processes' stores on one PostgreSQL."""
    url = postgres_server.emptied()
    made = [PromptStore.open(tmp_path / str(number), database_url=url) for number in range(2)]
    yield made
    for store in made:
        store.close()


def test_replicas_add_usage_without_the_publish_lock(replicas: list[PromptStore]) -> None:
    one, other = replicas
    with one._database.write(EVERY_TENANT):
        # It waits for none of our locks, but it may for PostgreSQL's own, while that frees pages of a table.
        assert other.record_usage(REPLICA, random_rows(4, 50), patience_seconds=300) == 50
        with pytest.raises(StoreError, match="locked"):  # control
            other.check_writable(0.05)


def test_replicas_that_add_to_the_same_hours_at_once_lose_nothing(replicas: list[PromptStore]) -> None:
    """Each in its own order."""
    together, failed = threading.Barrier(4), list[StoreError]()
    rows = [random_rows(seed, 120, timedelta(hours=3)) for seed in range(4)]

    def add(number: int) -> None:
        together.wait()
        for at in range(0, 120, 10):
            try:
                replicas[number % 2].record_usage(f"{number:016x}", rows[number][at : at + 10])
            except StoreError as error:
                failed.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    everybodys = added([each for some in rows for each in some])[()]
    assert not failed and in_tables(replicas[0]) == (everybodys, everybodys)


def until_waiting(store: PromptStore, count: int) -> None:
    """Return once so many transactions wait for another's row."""
    pause = threading.Event()
    with store._database.engine.connect() as connection:
        while connection.exec_driver_sql(WAITING_FOR_ROWS).scalar() != count:
            connection.rollback()
            pause.wait(0.01)


def both_after(store: PromptStore, row_of: str, *deeds: Callable[[], object]) -> list[StoreError]:
    """What the deeds raise that are done at once: each waits for a row, in their order, before any has it."""
    failed: list[StoreError] = []

    def do(deed: Callable[[], object]) -> None:
        try:
            deed()
        except StoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=do, args=(deed,)) for deed in deeds]
    with store._database.write(EVERY_TENANT, alone=False) as connection:
        found = connection.exec_driver_sql(f"SELECT * FROM {row_of} FOR UPDATE").all()
        assert len(found) == 1
        for waiting, each in enumerate(threads, 1):
            each.start()
            until_waiting(store, waiting)
    for each in threads:
        each.join()
    return failed


def at_hours(**hours: int) -> list[UsageRow]:
    """Rows of tasks, each in its hour."""
    found = enumerate(hours.items())
    return [row(n, BEGIN + timedelta(hours=hour), task=f"acme/{task}") for n, (task, hour) in found]


@pytest.mark.parametrize("in_order", [True, pytest.param(False, id="control")])
def test_two_that_add_to_hours_in_opposite_order_do_not_wait_for_each_other(
    replicas: list[PromptStore], monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    """As one of an older Chorus may, which takes them in any order: then PostgreSQL ends one of the two. Its
    recorder writes again, and nothing is lost or counted twice."""
    one, other = replicas
    one.record_usage("a" * 16, at_hours(a=0, b=0))
    if not in_order:
        monkeypatch.setattr(usage_module, "sorted", list, raising=False)
    there, back = at_hours(a=0, b=0), at_hours(b=0, a=0)
    deeds = [
        lambda: one.record_usage("b" * 16, there, patience_seconds=300),
        lambda: other.record_usage("c" * 16, back, patience_seconds=300),
    ]
    failed = both_after(one, "usage_hours WHERE task = 'acme/a'", *deeds)
    assert ["DeadlockDetected" in str(error) for error in failed] == [True] * (not in_order)
    assert sorted(deed() for deed in deeds) == ([0, 0] if in_order else [0, 2])
    assert in_tables(one) == ((6, 42, 18, 60), (6, 42, 18, 60))


@pytest.mark.parametrize("in_order", [True, pytest.param(False, id="control")])
@pytest.mark.parametrize("rows_of", ["hours", "days"])
def test_whoever_drops_hours_does_not_wait_for_one_who_waits_for_it(
    replicas: list[PromptStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_order: bool, rows_of: str
) -> None:
    """What is dropped goes as it lies, what is added from task to task."""
    one = replicas[0]
    as_it_lies = {"options": "-c enable_indexscan=off -c enable_bitmapscan=off"}
    url = one._database.engine.url.update_query_dict(as_it_lies)
    other = PromptStore.open(tmp_path / "as it lies", database_url=url.render_as_string(hide_password=False))
    # Tables that were emptied by DELETE have gaps, where a later row may come to lie before an earlier one.
    with psycopg.connect(as_superuser(one._database.engine.url)) as connection:
        connection.execute("TRUNCATE usage_hours, usage_days")
    one.record_usage("a" * 16, at_hours(b=0))
    one.record_usage("b" * 16, at_hours(a=1))
    if not in_order:
        monkeypatch.setattr(usage_module, "_lock_in_order", lambda *_: None)
    rows = at_hours(a=1, b=0) if rows_of == "hours" else at_hours(a=2, b=2)
    failed = both_after(
        one,
        f"usage_{rows_of} WHERE task = 'acme/a'",
        lambda: one.record_usage("c" * 16, rows, patience_seconds=300),
        lambda: other.drop_usage_of("acme"),
    )
    other.close()
    assert ["DeadlockDetected" in str(error) for error in failed] == [True] * (not in_order)
