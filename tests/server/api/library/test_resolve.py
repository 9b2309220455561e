"""A cached reference needs no database: a fresh one asks nobody, a spare serves while the store is silent.

The clock is the test's; a store that hangs is one whose reading threads are all taken.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chorus_server.api.http.errors import StoreAnswerError
from chorus_server.api.http.offload import Offload
from chorus_server.api.library import resolve, store_health
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.changes.memory import STALE_SECONDS
from prompts_store.database import EVERY_TENANT
from prompts_store.errors import StoreError
from prompts_store.records import EnsembleMember
from prompts_store.store import PromptStore
from prompts_store.testing import example_prompt
from tests.server.connections.bounded_harness import Clock

STALENESS = 0.5
READERS = 2


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def library(folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[PromptLibrary]:
    monkeypatch.setattr(resolve, "ASK_SECONDS", 0.02)
    store = PromptStore.open(folder)
    for seed in (1, 2):
        store.publish("acme", "t", *example_prompt(seed))
    store.publish_ensemble("acme", "e", [EnsembleMember("acme", "t", number, 1.0) for number in (1, 2)])
    made = PromptLibrary(store, Offload(READERS, 8, "readers"), Offload(1, 8, "writers"), STALENESS, clock)
    yield made
    made.close()


async def number_of(library: PromptLibrary, reference: str = "t") -> int:
    async with library.held([(reference, "task")], "acme", "f" * 64) as versions:
        assert library.store._leases.held() == 1
        return versions[reference].number


@asynccontextmanager
async def hanging(library: PromptLibrary) -> AsyncIterator[Callable[[], None]]:
    """Every reading thread is taken until the block ends, or the function is called."""
    gate = threading.Event()
    taken = threading.Barrier(READERS + 1)

    def hang() -> None:
        taken.wait(300)
        assert gate.wait(300)

    calls = [asyncio.ensure_future(library.read(hang)) for _ in range(READERS)]
    await asyncio.to_thread(taken.wait, 300)
    try:
        yield gate.set
    finally:
        gate.set()
        await asyncio.gather(*calls)


def run(scenario: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 300))


def test_a_fresh_reference_takes_no_thread_and_no_database(library: PromptLibrary, clock: Clock) -> None:
    async def scenario() -> None:
        assert await number_of(library) == 1
        clock.now += 0.9 * STALENESS
        async with hanging(library):
            assert library._readers._pending == READERS
            assert await number_of(library) == 1
            assert library._readers._pending == READERS  # nothing was even asked
        assert library.store._leases.held() == 0

    run(scenario)


def test_control_a_reference_that_is_not_kept_waits_for_a_thread(library: PromptLibrary) -> None:
    async def scenario() -> None:
        async with hanging(library) as let_go:
            asked = asyncio.ensure_future(number_of(library))
            await asyncio.sleep(0)
            assert library._readers._pending == READERS + 1 and not asked.done()
            let_go()
            assert await asked == 1

    run(scenario)


@pytest.mark.parametrize("reference", ["t", "t@2", "acme/t@live"])
def test_a_spare_serves_while_the_store_hangs(library: PromptLibrary, clock: Clock, reference: str) -> None:
    async def scenario() -> None:
        number = await number_of(library, reference)
        clock.now += 2 * STALENESS
        async with hanging(library) as let_go:
            assert await number_of(library, reference) == number
            assert library.health.report() is not None and library.health.serves
            pending = library._readers._pending
            for _ in range(5):  # who comes in the same second does not wait for what is known to hang
                assert await number_of(library, reference) == number
            assert library._readers._pending == pending
            clock.now += STALE_SECONDS - 2 * STALENESS - 0.1
            assert await number_of(library, reference) == number
            clock.now += 0.2
            asked = asyncio.ensure_future(number_of(library, reference))
            await asyncio.sleep(2 * resolve.ASK_SECONDS)
            assert not asked.done()  # there is no spare any more
            let_go()
            assert await asked == number
        assert library.health.report() is None
        assert library.store._leases.held() == 0

    run(scenario)


def test_a_spare_ensemble_serves_too(library: PromptLibrary, clock: Clock) -> None:
    async def scenario() -> None:
        made = await library.ensemble("e", "acme")
        async with hanging(library):
            assert await library.ensemble("e", "acme") == made
            assert library._readers._pending == READERS
            clock.now += 2 * STALENESS
            assert await library.ensemble("e", "acme") == made

    run(scenario)


def test_a_spare_serves_while_reads_fail_and_then_nothing_does(
    library: PromptLibrary, clock: Clock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's file is gone and back again."""
    monkeypatch.setattr(resolve, "ASK_SECONDS", 300.0)
    monkeypatch.setattr(store_health, "LOOK_SECONDS", 300.0)

    async def scenario() -> None:
        health = library.health
        assert await number_of(library) == 1
        hidden = folder / "hidden.db"
        library.store._database.engine.dispose()
        (folder / "chorus.db").rename(hidden)
        (folder / "chorus.db").mkdir()
        clock.now += 2 * STALENESS
        assert await number_of(library) == 1
        report = health.report()
        assert report is not None and (report["status"], report["since_seconds"]) == ("unreadable", 0.0)
        with pytest.raises(StoreAnswerError) as caught:
            await number_of(library, "t@2")  # never asked before
        assert caught.value.code == "store_unavailable" and caught.value.retry_after_seconds == 1
        clock.now += STALE_SECONDS
        await health.look()
        assert not health.serves
        with pytest.raises(StoreAnswerError):
            await number_of(library)
        (folder / "chorus.db").rmdir()
        hidden.rename(folder / "chorus.db")
        await health.look()
        assert (health.report(), health.serves) == (None, True)
        assert await number_of(library) == 1

    run(scenario)


def test_a_spare_is_no_answer_to_what_the_store_refuses(
    library: PromptLibrary, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process deleted it: the store says so, and is healthy."""
    monkeypatch.setattr(resolve, "ASK_SECONDS", 300.0)

    async def scenario() -> None:
        assert await number_of(library, "t@2") == 2
        library.store.delete_ensemble("acme", "e")
        library.store.delete_version("acme", "t", 2)
        clock.now += 2 * STALENESS
        with pytest.raises(StoreAnswerError) as caught:
            await number_of(library, "t@2")
        assert caught.value.code == "unknown_version"
        assert library.health.report() is None

    run(scenario)


def test_a_change_through_this_process_leaves_no_spare(library: PromptLibrary, clock: Clock) -> None:
    async def scenario() -> None:
        assert await number_of(library) == 1
        await library.write(library.store.set_alias, "acme", "t", "live", 2)
        assert await number_of(library) == 2
        await library.write(library.store.set_alias, "acme", "t", "live", 1)
        clock.now += 2 * STALENESS
        async with hanging(library) as let_go:
            asked = asyncio.ensure_future(number_of(library))
            await asyncio.sleep(2 * resolve.ASK_SECONDS)
            assert not asked.done()
            let_go()
            assert await asked == 1

    run(scenario)


def test_a_change_that_failed_leaves_the_spares(library: PromptLibrary) -> None:
    async def scenario() -> None:
        assert await number_of(library) == 1
        library.store._database.patience_seconds = 0.01
        with library.store._database.write(EVERY_TENANT), pytest.raises(StoreError, match="locked"):
            await library.write(library.store.set_alias, "acme", "t", "live", 2)
        async with hanging(library):
            assert await number_of(library) == 1  # asked anew, in vain: it might have been changed

    run(scenario)


def test_an_answer_from_before_a_change_is_not_kept(library: PromptLibrary) -> None:
    """The question is under way while another request moves the alias."""

    async def scenario() -> None:
        read, moved = threading.Event(), threading.Event()
        honest = library.store.resolve

        def slow(*args: Any, **kwargs: Any) -> Any:
            answer = honest(*args, **kwargs)
            read.set()
            assert moved.wait(300)
            return answer

        library.store.resolve = slow  # type: ignore[method-assign]
        asked = asyncio.ensure_future(number_of(library))
        await asyncio.to_thread(read.wait, 300)
        library.store.resolve = honest  # type: ignore[method-assign]
        await library.write(library.store.set_alias, "acme", "t", "live", 2)
        moved.set()
        assert await asked == 1
        assert await number_of(library) == 2

    run(scenario)


def test_a_look_asks_again_only_when_the_last_question_has_ended(
    library: PromptLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_health, "LOOK_SECONDS", 0.02)
    gate, asked = threading.Event(), []

    def hang() -> None:
        asked.append(threading.get_ident())
        assert gate.wait(300)

    for probe in (library.health._reads, library.health._writes):
        monkeypatch.setattr(probe, "_question", hang)

    async def scenario() -> None:
        for _ in range(3):
            await library.health.look()
        report = library.health.report()
        assert report is not None and report["status"] == "unreadable"
        assert len(asked) <= 2
        gate.set()
        while library.health.report() is not None:
            await library.health.look()

    run(scenario)
