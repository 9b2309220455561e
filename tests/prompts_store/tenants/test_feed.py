import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url

from prompts_store import PromptStore
from prompts_store.errors import ConflictError, InvalidError
from prompts_store.records import EnsembleMember
from prompts_store.tenants import feed
from prompts_store.tenants.records import Change
from prompts_store.testing import FakeClock, example_prompt
from tests.postgres_server import PostgresServer
from tests.prompts_store.writers import WRITERS, writing_processes


def told(store: PromptStore, after: int = 0) -> list[tuple[str, str, str]]:
    return [(change.kind, change.tenant, change.subject) for change in store.changes_after(after).items]


def make_changes(store: PromptStore, number: int) -> None:
    store.create_tenant("acme")
    for weight in range(2, number + 1):
        store.update_tenant("acme", weight=weight)


def test_an_empty_feed(store: PromptStore) -> None:
    assert store.last_change() == 0
    found = store.changes_after(0)
    assert (found.items, found.behind, found.last) == ((), False, 0)


def test_what_others_may_have_in_a_cache_is_told_in_order(store: PromptStore, clock: FakeClock) -> None:
    for seed in (1, 2):
        store.publish("acme", "sst2", *example_prompt(seed))
    store.publish("acme", "sst2", *example_prompt(1))
    assert told(store) == [("alias_moved", "acme", "sst2@live")], "a second version is in nobody's cache"
    assert store.changes_after(0).items[0] == Change(1, clock(), "alias_moved", "acme", "sst2@live")
    store.set_alias("acme", "sst2", "live", 2)
    store.set_alias("acme", "sst2", "live", 2)
    store.rollback("acme", "sst2")
    store.set_alias("acme", "sst2", "canary", 2)
    store.remove_alias("acme", "sst2", "canary")
    for number in (1, 1):
        store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", number)])
    store.publish_ensemble("acme", "team", [EnsembleMember("acme", "sst2", 1, 2.0)])
    store.set_ensemble_alias("acme", "team", "live", 2)
    store.rollback_ensemble("acme", "team")
    store.remove_ensemble_alias("acme", "team", "live")
    store.set_ensemble_alias("acme", "team", "canary", 1)
    with pytest.raises(ConflictError):
        store.delete_task("acme", "sst2")
    store.delete_ensemble("acme", "team")
    store.delete_version("acme", "sst2", 2)
    store.delete_task("acme", "sst2")
    assert told(store, 1) == [
        ("alias_moved", "acme", "sst2@live"),
        ("alias_moved", "acme", "sst2@live"),
        ("alias_moved", "acme", "sst2@canary"),
        ("alias_removed", "acme", "sst2@canary"),
        ("ensemble_alias_moved", "acme", "team@live"),
        ("ensemble_published", "acme", "team@1"),
        ("ensemble_published", "acme", "team@2"),
        ("ensemble_alias_moved", "acme", "team@live"),
        ("ensemble_alias_moved", "acme", "team@live"),
        ("ensemble_alias_removed", "acme", "team@live"),
        ("ensemble_alias_moved", "acme", "team@canary"),
        ("ensemble_alias_removed", "acme", "team@canary"),
        ("ensemble_deleted", "acme", "team"),
        ("version_deleted", "acme", "sst2@2"),
        ("alias_removed", "acme", "sst2@live"),
        ("task_deleted", "acme", "sst2"),
    ]


def test_a_change_that_fails_is_not_told(store: PromptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are in one transaction: neither is there without the other."""
    store.publish("acme", "sst2", *example_prompt(1))
    store.publish("acme", "sst2", *example_prompt(2))

    def fails(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(feed, "record", fails)
        with pytest.raises(KeyboardInterrupt):
            store.set_alias("acme", "sst2", "live", 2)
    assert store.aliases("acme", "sst2") == {"live": 1} and store.last_change() == 1


def test_a_reader_goes_on_where_it_was(store: PromptStore) -> None:
    make_changes(store, 5)
    first = store.changes_after(0, 2)
    assert [change.number for change in first.items] == [1, 2] and first.last == 2
    rest = store.changes_after(first.last)
    assert [change.number for change in rest.items] == [3, 4, 5] and rest.last == 5
    assert store.changes_after(5) == type(rest)((), False, 5)
    for wrong in (-1, True, 1.0, "1", 2**63):
        with pytest.raises(InvalidError):
            store.changes_after(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidError):
        store.changes_after(0, 0)


def test_a_reader_behind_what_is_kept_is_told(store: PromptStore, clock: FakeClock) -> None:
    make_changes(store, 3)
    clock.advance(3600)
    store.update_tenant("acme", weight=90)
    assert store.drop_changes(clock()) == 3
    for number in (0, 1, 2):
        found = store.changes_after(number)
        assert (found.items, found.behind, found.last) == ((), True, 4), "drop all, and go on from 4"
    found = store.changes_after(3)
    assert ([change.number for change in found.items], found.behind) == ([4], False)
    assert store.changes_after(4).behind is False


def test_the_newest_change_stays_so_numbers_go_on(store: PromptStore, clock: FakeClock) -> None:
    make_changes(store, 3)
    clock.advance(7200)
    assert store.drop_changes(clock()) == 2
    assert store.drop_changes(clock()) == 0
    assert store.changes_after(3).behind is False and store.changes_after(1).behind is True
    store.update_tenant("acme", weight=90)
    assert store.last_change() == 4


def test_a_number_that_was_never_given_means_another_database(store: PromptStore) -> None:
    """A backup that was restored: what the reader saw since then has not happened."""
    make_changes(store, 3)
    found = store.changes_after(7)
    assert (found.items, found.behind, found.last) == ((), True, 3)


def test_what_is_kept_has_no_holes_whatever_the_clocks_said(store: PromptStore, clock: FakeClock) -> None:
    make_changes(store, 2)
    clock.advance(600)  # of another process: ten minutes fast
    store.update_tenant("acme", weight=90)
    clock.advance(-500)
    store.update_tenant("acme", weight=91)
    assert store.drop_changes(clock() + timedelta(seconds=100)) == 2
    assert [change.number for change in store.changes_after(2).items] == [3, 4]


def test_many_are_dropped_in_small_transactions(
    store: PromptStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_changes(store, 10)
    clock.advance(1)
    monkeypatch.setattr(feed, "_DROPPED_AT_ONCE", 4)
    assert store.drop_changes(clock()) == 9
    assert [change.number for change in store.changes_after(9).items] == [10]


def test_the_collector_drops_what_is_older_than_an_hour(store: PromptStore, clock: FakeClock) -> None:
    make_changes(store, 2)
    clock.advance(3600)
    store.collect(grace_seconds=0)
    assert store.changes_after(0).behind is False
    store.update_tenant("acme", weight=90)
    clock.advance(1)
    store.collect(grace_seconds=0)
    assert store.changes_after(0).behind is True and store.changes_after(2).behind is False


CHANGES_EACH = 20


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_reader_sees_every_number_in_order_while_writers_race(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_server").emptied() if database == "postgresql" else None
    total = WRITERS * (1 + CHANGES_EACH)
    with (
        writing_processes(tmp_path, url) as writers,
        closing(PromptStore.open(tmp_path, database_url=url)) as reader,
    ):
        begin = threading.Barrier(WRITERS)
        failed: list[BaseException] = []

        def write(number: int) -> None:
            try:
                begin.wait()
                writers[number].create_tenant(f"tenant-{number}")
                for weight in range(2, CHANGES_EACH + 2):
                    writers[number].update_tenant(f"tenant-{number}", weight=weight)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        seen: list[Change] = []
        while len(seen) < total and not failed:
            found = reader.changes_after(len(seen))
            assert not found.behind
            seen.extend(found.items)
        for thread in threads:
            thread.join()
        assert failed == []
        assert [change.number for change in seen] == list(range(1, total + 1))
        assert sorted(change.tenant for change in seen) == sorted(
            f"tenant-{number}" for number in range(WRITERS) for _ in range(1 + CHANGES_EACH)
        )


def test_control_numbers_of_a_bare_sequence_are_skipped(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """Two writers outside the lock: the one with the later number commits first."""
    url = postgres_server.emptied("chorus")
    row = "INSERT INTO changes VALUES (nextval('bare'), 0, 'tenant_updated', '{}', '')"
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with closing(PromptStore.open(tmp_path, database_url=url)) as reader:
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql("CREATE SEQUENCE bare")
            with engine.connect() as slow, engine.connect() as fast:
                slow.exec_driver_sql(row.format("slow"))
                fast.exec_driver_sql(row.format("fast"))
                fast.commit()
                found = reader.changes_after(0)
                assert found.behind and found.last == 2, "out of order, and told by the hole"
                slow.commit()
            assert reader.changes_after(found.last).items == (), "what the slow one changed is never seen"
            assert [change.tenant for change in reader.changes_after(0).items] == ["slow", "fast"]
        finally:
            with engine.begin() as connection:
                connection.exec_driver_sql("DROP SEQUENCE IF EXISTS bare")
            engine.dispose()
