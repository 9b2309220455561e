"""Collecting costs what there is to collect, not what there is: writers wait for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from prompts_store import PromptStore
from prompts_store.database import EVERY_TENANT
from prompts_store.testing import FakeClock, example_prompt
from prompts_store.upkeep import collector


@contextmanager
def selects(store: PromptStore) -> Iterator[list[tuple[str, Any]]]:
    """The queries that the store makes meanwhile."""
    made: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if statement.lstrip().startswith("SELECT"):
            made.append((statement, parameters))

    engine = store._database.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield made
    finally:
        event.remove(engine, "before_cursor_execute", note)


def plan(store: PromptStore, statement: str, parameters: Any) -> str:
    with store._database.read(EVERY_TENANT) as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "; ".join(row[3] for row in rows)


def test_the_blobs_that_versions_name_are_not_looked_at(disk_store: PromptStore) -> None:
    values, manifest = example_prompt(1)
    disk_store.publish("acme", "sst2", values, manifest)
    with selects(disk_store) as made:
        disk_store.collect(grace_seconds=0)
    (taken,) = [plan(disk_store, *query) for query in made if "unreferenced_at <=" in query[0]]
    assert "ix_blobs_unreferenced" in taken and "TEMP B-TREE" not in taken
    # The control: in the order of the digests, the database walks all of them.
    slow = "SELECT digest FROM blobs WHERE unreferenced_at <= 1 AND digest > '' ORDER BY digest LIMIT 9"
    assert "ix_blobs_unreferenced" not in plan(disk_store, slow, ())


def test_batches_of_one_instant_and_of_others_are_all_taken_but_those_in_use(
    store: PromptStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "BATCH", 3)
    published = []
    for seed in range(11):
        values, manifest = example_prompt(seed)
        task = "together" if seed < 8 else f"alone-{seed}"
        published.append(store.publish("acme", task, values, manifest).version)
    for task in ("together", "alone-8", "alone-9"):
        store.delete_task("acme", task)
        clock.advance(5)
    with store.hold(published[2]):
        report = store.collect(grace_seconds=0)
    assert (report.blobs, report.held) == (9, 1)
    assert store.collect(grace_seconds=0).blobs == 1
    assert store.values(published[10].manifest.digest).shape[0] > 0
    assert store.check().clean
