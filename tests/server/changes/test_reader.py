"""Following the change feed: what is told, what drops everything, and what a reading that fails leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chorus_server.api.http.offload import Offload
from chorus_server.changes import reader as module
from chorus_server.changes.reader import READ_EVERY_SECONDS, ChangeReader
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tenant_tables import changes
from prompts_store.store import PromptStore
from prompts_store.tenants.records import Change
from prompts_store.testing import FakeClock
from tests.server.connections.bounded_harness import Clock


class Told:
    """Remembers nothing but what it was told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.confirmed: list[float] = []

    def changed(self, changes: Sequence[Change]) -> None:
        self.events += [(change.kind, change.tenant) for change in changes]

    def forget(self) -> None:
        self.events.append("forget")

    def confirm(self, at: float) -> None:
        self.confirmed.append(at)

    def take(self) -> list[Any]:
        taken, self.events = self.events, []
        return taken


class Following:
    def __init__(self, folder: Path) -> None:
        self.time = FakeClock()
        self.store = PromptStore.open(folder, clock=self.time)
        self.clock, self.told, self.notes = Clock(), Told(), list[bool]()
        self.thread = Offload(1, 1, "change feed")
        self.reader = ChangeReader(self.store, self.thread, [self.told], self.notes.append, self.clock)


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Following]:
    made = Following(tmp_path)
    yield made
    made.thread.close()
    made.store.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 300)  # type: ignore[arg-type]

    asyncio.run(bounded())


def test_a_start_drops_all_and_then_each_change_is_told_once(following: Following) -> None:
    async def scenario() -> None:
        following.store.create_tenant("before")
        assert await following.reader.read()
        assert following.told.take() == ["forget"]
        following.store.create_tenant("acme")
        following.store.suspend_tenant("acme")
        assert await following.reader.read() and await following.reader.read()
        assert following.told.take() == [("tenant_created", "acme"), ("tenant_suspended", "acme")]
        assert len(following.told.confirmed) == 3 and following.notes == [True] * 3

    run(scenario)


def test_more_than_a_page_is_read_at_once(following: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIMIT", 2)
    monkeypatch.setattr(PromptStore.changes_after, "__defaults__", (2,))

    async def scenario() -> None:
        await following.reader.read()
        following.told.take()
        for n in range(5):
            following.store.create_tenant(f"t{n}")
        assert await following.reader.read()
        assert [tenant for _, tenant in following.told.take()] == [f"t{n}" for n in range(5)]
        assert len(following.told.confirmed) == 2  # not before all was read

    run(scenario)


def test_who_has_slept_longer_than_changes_are_kept_drops_all(following: Following) -> None:
    async def scenario() -> None:
        following.store.create_tenant("first")
        await following.reader.read()
        following.told.take()
        for name in ("second", "third"):
            following.store.create_tenant(name)
            following.time.advance(3600)
        following.store.drop_changes(following.time() - timedelta(minutes=1))
        await following.reader.read()
        assert following.told.take() == ["forget"]
        following.store.create_tenant("fourth")
        await following.reader.read()
        assert following.told.take() == [("tenant_created", "fourth")]

    run(scenario)


def test_a_kind_that_is_not_known_is_a_change_of_everything(following: Following) -> None:
    async def scenario() -> None:
        await following.reader.read()
        following.told.take()
        with following.store._database.write(EVERY_TENANT) as connection:
            row = {"number": 1, "at": following.time(), "kind": "of tomorrow", "tenant": "a", "subject": ""}
            connection.execute(changes.insert().values(**row))
        await following.reader.read()
        assert following.told.take() == ["forget"]

    run(scenario)


def test_a_reading_that_hangs_confirms_nothing_and_the_next_goes_on(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, honest = threading.Event(), following.store.changes_after

    async def scenario() -> None:
        await following.reader.read()
        monkeypatch.setattr(module, "READ_SECONDS", 0.02)
        following.told.take()
        following.store.create_tenant("acme")
        monkeypatch.setattr(
            following.store, "changes_after", lambda number: (gate.wait(300), honest(number))[1]
        )
        assert not await following.reader.read() and not await following.reader.read()
        assert following.told.take() == [] and len(following.told.confirmed) == 1
        gate.set()
        monkeypatch.setattr(module, "READ_SECONDS", 300.0)
        while not await following.reader.read():  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert following.told.take() == [("tenant_created", "acme")]
        assert following.notes[:3] == [True, False, False] and following.notes[-1]

    run(scenario)


def test_it_reads_again_and_again(following: Following) -> None:
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 3:
            raise asyncio.CancelledError

    async def scenario() -> None:
        with pytest.raises(asyncio.CancelledError):
            await following.reader.follow(sleep)
        assert paused == [READ_EVERY_SECONDS] * 3 and following.notes == [True] * 3

    run(scenario)
