import base64
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from prompts_store import PromptStore
from prompts_store.errors import InvalidError
from prompts_store.testing import example_file, example_prompt

SPEC = {"base_fingerprint": "base"}


def publish(store: PromptStore, task: str, seed: int = 1, tenant: str = "acme", **fields: Any) -> None:
    values, manifest = example_prompt(seed, **fields)
    store.publish(tenant, task, values, manifest)


def names(store: PromptStore, **filters: Any) -> list[str]:
    """Every name, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = store.list_tasks("acme", cursor=cursor, **filters)
        found += [task.name for task in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


ALL = ["10", "a", "a-b", "a.b", "a_b", "ab", "b"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_hold_every_task_once_in_order(store: PromptStore, limit: int) -> None:
    for name in reversed(ALL):
        publish(store, name)
    publish(store, "z", tenant="other")
    publish(store, "deleted")
    store.delete_task("acme", "deleted")
    assert names(store, limit=limit) == sorted(ALL)
    assert names(store, limit=limit, prefix="a") == ["a", "a-b", "a.b", "a_b", "ab"]
    assert names(store, limit=limit, prefix="a_") == ["a_b"]
    assert names(store, limit=limit, prefix="zz") == []


def test_a_full_last_page_has_no_cursor(store: PromptStore) -> None:
    for name in ("a", "b"):
        publish(store, name)
    assert store.list_tasks("acme", limit=2).next_cursor is None


def test_pages_go_on_where_they_stopped_whatever_came_and_went(store: PromptStore) -> None:
    for name in ("b", "d", "f"):
        publish(store, name)
    page = store.list_tasks("acme", limit=2)
    store.delete_task("acme", "d")
    publish(store, "a")
    publish(store, "e")
    rest = store.list_tasks("acme", limit=2, cursor=page.next_cursor)
    assert [task.name for task in rest.items] == ["e", "f"]


def test_a_list_shows_what_each_task_is(store: PromptStore) -> None:
    publish(store, "a")
    publish(store, "a", 2)
    store.set_alias("acme", "a", "canary", 2)
    assert store.list_tasks("acme").items == (store.get_task("acme", "a"),)
    assert store.get_task("acme", "a").aliases == {"live": 1, "canary": 2}


def test_a_list_tells_the_live_version_and_the_last_move_of_each_task(store: PromptStore) -> None:
    publish(store, "a", labels=("yes", "no"))
    publish(store, "a", 2, labels=("good", "bad"))
    publish(store, "b")
    store.set_alias("acme", "a", "live", 2, moved_by="ann")
    store.remove_alias("acme", "b", "live", moved_by="bob")
    a, b = store.list_tasks("acme").items
    assert a.live is not None and (a.live.number, a.live.labels) == (2, ("good", "bad"))
    assert a.live.metrics == store.get_version("acme", "a", 2).metrics
    assert a.last_move == store.alias_history("acme", "a").items[-1]
    assert a.last_move is not None and (a.last_move.version, a.last_move.moved_by) == (2, "ann")
    assert b.live is None and b.last_move is not None
    assert (b.last_move.version, b.last_move.moved_by) == (None, "bob")
    store.delete_task("acme", "b")
    assert [task.name for task in store.list_tasks("acme").items] == ["a"]


def test_a_long_page_takes_as_many_statements_as_a_short_one(disk_store: PromptStore) -> None:
    for number in range(30):
        publish(disk_store, f"t{number}")
    engine, taken = disk_store._database.engine, []

    def note(connection: Any, dbapi: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        taken.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    counts = []
    for limit in (2, 30):
        taken.clear()
        assert len(disk_store.list_tasks("acme", limit=limit).items) == limit
        counts.append(len([each for each in taken if each.startswith("SELECT")]))
    event.remove(engine, "before_cursor_execute", note)
    assert counts == [4, 4]


def test_the_label_filter_follows_live(store: PromptStore) -> None:
    publish(store, "a", labels=("yes", "no"))
    publish(store, "b", labels=("yes", "maybe"))
    publish(store, "c")
    publish(store, "a", 2, labels=("good",))
    assert names(store, label="yes", limit=1) == ["a", "b"]
    assert names(store, label="yes", prefix="b") == ["b"]
    assert names(store, label="good") == []
    store.set_alias("acme", "a", "live", 2)
    assert (names(store, label="yes"), names(store, label="good")) == (["b"], ["a"])
    store.rollback("acme", "a")
    assert names(store, label="yes") == ["a", "b"]
    store.remove_alias("acme", "a", "live")
    assert names(store, label="yes") == ["b"]
    store.delete_task("acme", "b")
    assert names(store, label="yes") == []
    assert store.check().clean


def test_versions_come_newest_first(store: PromptStore) -> None:
    for seed in range(1, 6):
        publish(store, "a", seed)
    store.delete_version("acme", "a", 3)
    first = store.list_versions("acme", "a", limit=2)
    assert [version.number for version in first.items] == [5, 4]
    rest = store.list_versions("acme", "a", limit=2, cursor=first.next_cursor)
    assert [version.number for version in rest.items] == [2, 1] and rest.next_cursor is None


def _cursor(body: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "not base64!",
        "é",
        "AAAA",
        _cursor(["versions", 3]),
        _cursor(["tasks", "A"]),
        _cursor(["tasks", "a"]),  # right, but with blanks: not as it was handed out
        _cursor(["tasks"]),
        _cursor({"tasks": 1}),
        "W" * 10_000,
        b"W10",
        7,
    ],
)
def test_a_cursor_that_no_list_gave_is_refused(store: PromptStore, cursor: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        store.list_tasks("acme", cursor=cursor)
    assert (caught.value.code, caught.value.field) == ("invalid_cursor", "cursor")


@pytest.mark.parametrize("limit", [0, -1, 501, True, "5", 2.0])
def test_a_bad_limit_is_refused(store: PromptStore, limit: Any) -> None:
    publish(store, "a")
    for attempt in (store.list_tasks, store.list_ensembles):
        with pytest.raises(InvalidError) as caught:
            attempt("acme", limit=limit)
        assert (caught.value.code, caught.value.field) == ("invalid_limit", "limit")
    with pytest.raises(InvalidError):
        store.list_versions("acme", "a", limit=limit)


@pytest.mark.parametrize("prefix", ["%", "A", "x" * 65, None, "a\n"])
def test_a_bad_prefix_is_refused(store: PromptStore, prefix: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        store.list_tasks("acme", prefix=prefix)
    assert (caught.value.code, caught.value.field) == ("invalid_prefix", "prefix")


def test_reading_takes_an_index_and_never_sorts_or_scans(disk_store: PromptStore, tmp_path: Path) -> None:
    """What a million versions will need: SQLite's own plan of every statement that a read runs."""
    for name in ("a", "b"):
        publish(disk_store, name, labels=("yes", "no"))
    cursor = disk_store.list_tasks("acme", limit=1).next_cursor
    file, job = (example_file(disk_store, b"rows"), disk_store.create_job("acme", "tuning", SPEC))
    example_file(disk_store, b"rows")
    disk_store.create_job("acme", "tuning", SPEC)
    newest_file = disk_store.list_files("acme", limit=1).next_cursor
    newest_job = disk_store.list_jobs("acme", "tuning", limit=1).next_cursor
    statements: list[tuple[str, Any]] = []
    engine = disk_store._database.engine

    def note(connection: Any, dbapi: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    disk_store.resolve("a", tenant="acme")
    disk_store.resolve("a@1", tenant="acme")
    disk_store.list_tasks("acme", prefix="b", cursor=cursor)
    disk_store.list_tasks("acme", label="yes", prefix="b", cursor=cursor)
    disk_store.list_versions("acme", "a")
    disk_store.alias_history("acme", "a")
    disk_store.list_files("acme", cursor=newest_file)
    disk_store.local_file("acme", file.id)
    disk_store.list_jobs("acme", "tuning", cursor=newest_job)
    disk_store.list_jobs("acme", "tuning", status="queued", cursor=newest_job)
    disk_store.job_events("acme", job.id, after=1)
    event.remove(engine, "before_cursor_execute", note)
    queries = [(text, values) for text, values in statements if text.startswith("SELECT")]
    assert len(queries) >= 15
    for text, values in queries:
        bad = [
            step for step in _plan(engine, text, values) if step.startswith("SCAN") or "TEMP B-TREE" in step
        ]
        assert not bad, f"{bad} in {text}"


def test_a_claim_looks_at_unfinished_jobs_only(disk_store: PromptStore) -> None:
    """It sorts those that wait, but never reads the thousands that are over."""
    disk_store.create_job("acme", "tuning", SPEC)
    engine, statements = disk_store._database.engine, []

    def note(connection: Any, dbapi: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    disk_store.claim_job("tuning", "worker", 60, "base")
    event.remove(engine, "before_cursor_execute", note)
    reads = [(text, values) for text, values in statements if text.startswith("SELECT")]
    assert len(reads) >= 3
    for text, values in reads:
        for step in _plan(engine, text, values):
            small = "ix_jobs_open" in step or "ix_jobs_unfinished" in step
            assert "jobs" not in step or step.startswith("SEARCH") or small, f"{step} in {text}"


def _plan(engine: Engine, text: str, values: Any) -> list[str]:
    with engine.connect() as connection:
        return [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]
