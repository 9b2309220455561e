"""A fault at every step of a change: both it and its row in the audit log are there, or neither is; and
whatever was cut off, the log is one chain.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from prompts_store import PromptStore
from prompts_store.audit import chain
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import tasks
from prompts_store.records import Actor
from prompts_store.tenants.records import Retention
from prompts_store.testing import FakeClock, Fault, example_prompt
from tests.faults.store_faults import faulty_store, sweep

OPERATIONS: dict[str, Callable[[PromptStore], object]] = {
    "publish": lambda store: store.publish("acme", "sst2", *example_prompt(3)),
    "first": lambda store: store.publish("birch", "task", *example_prompt(3)),
    "move": lambda store: store.set_alias("acme", "sst2", "live", 2),
    "delete": lambda store: store.delete_task("acme", "sst2"),
    "suspend": lambda store: store.suspend_tenant("acme"),
    "repair": lambda store: store.check(repair=True),
    "drop": lambda store: store.drop_audit(),
}


def _prepare(store: PromptStore, clock: FakeClock) -> None:
    store.create_tenant("acme")
    for seed in (1, 2):
        store.publish("acme", "sst2", *example_prompt(seed))
    with store._database.write(EVERY_TENANT) as connection:
        connection.execute(update(tasks).values(live_versions=99))
    store.update_tenant("acme", retention=Retention(audit_days=10))
    clock.advance(60 * 86_400)
    store.update_tenant("acme", weight=2)


def _visible(store: PromptStore) -> object:
    """What the operations change, and all that the log says of it, without hashes."""
    there = {task.name: dict(task.aliases) for task in store.list_tasks("acme").items}
    return (
        {name: [each.number for each in store.list_versions("acme", name).items] for name in there},
        there,
        [task.versions for task in store.list_tasks("acme").items],
        store.list_tasks("birch").items,
        store.list_tenants().items,
        {tenant: list(store.every_audit_row(tenant)) for tenant in store.audited()},
        [store.verify_audit(tenant) for tenant in store.audited()],
    )


@pytest.mark.parametrize("fault", ["die", "EIO"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_change_and_its_row_are_there_or_neither(tmp_path: Path, name: str, fault: Fault) -> None:
    clocks = FakeClock(), FakeClock()
    with (
        closing(PromptStore.open(tmp_path, clock=clocks[0])) as observer,
        closing(PromptStore.open(tmp_path / "twin", clock=clocks[1])) as twin,
    ):
        _prepare(observer, clocks[0])
        _prepare(twin, clocks[1])
        old = _visible(observer)
        OPERATIONS[name](twin.acting_for(Actor("ann")))
        new = _visible(twin)
        assert new != old
        store, files = faulty_store(tmp_path, clocks[0])
        with closing(store):
            steps = sweep(
                store.acting_for(Actor("ann")), files, OPERATIONS[name], fault,
                look=lambda: _visible(observer), old=old, new=new, again=lambda: None,
            )  # fmt: skip
        assert steps > 5
        assert all(observer.verify_audit(tenant).clean for tenant in observer.audited())


def test_control_a_row_in_a_transaction_of_its_own_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, append = FakeClock(), chain.append
    waiting: list[tuple[Any, Any]] = []

    def late(connection: Connection, *told: Any, **facts: Any) -> None:
        waiting.append((told, facts))

    def move(store: PromptStore) -> None:
        OPERATIONS["move"](store)
        with store._database.write(EVERY_TENANT) as connection:
            while waiting:
                told, facts = waiting.pop()
                append(connection, *told, **facts)

    with closing(PromptStore.open(tmp_path, clock=clock)) as observer:
        _prepare(observer, clock)
        old = _visible(observer)
        monkeypatch.setattr(chain, "append", late)
        store, files = faulty_store(tmp_path, clock)
        with closing(store), pytest.raises(AssertionError, match="left another state"):
            sweep(
                store, files, move, "die", look=lambda: _visible(observer), old=old, new=None,
                again=lambda: None,
            )  # fmt: skip
