"""The background collection: on the store's threads, through failures, to a clean end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from chorus_server.api.http.disconnect import settle
from chorus_server.api.http.offload import Offload
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.metrics import Metrics
from chorus_server.api.upkeep import SOON_SECONDS, Collection, StoreCheck, Upkeep
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import blobs
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore
from prompts_store.testing import FakeClock, example_prompt
from prompts_store.upkeep.check_report import CheckReport
from prompts_store.upkeep.checking import Checker
from prompts_store.upkeep.collector import CollectReport

HOUR = 3600.0


class Ticks:
    """Sleeps that the test ends: each is reported and lasts until `next` is called again.

    Args:
        clock: goes on by what each sleep asked for.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        self._clock = clock or FakeClock()
        self._asked: asyncio.Queue[float] = asyncio.Queue()
        self._go: asyncio.Queue[None] = asyncio.Queue()

    async def sleep(self, seconds: float) -> None:
        self._asked.put_nowait(seconds)
        await self._go.get()
        self._clock.advance(seconds)

    async def asked(self) -> float:
        """What the next sleep asks for."""
        return await asyncio.wait_for(self._asked.get(), 300)

    async def next(self) -> float:
        """End the sleep; what the one after it asks for."""
        self._go.put_nowait(None)
        return await self.asked()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def library(clock: FakeClock) -> Iterator[PromptLibrary]:
    store = PromptStore.in_memory(clock=clock)
    library = PromptLibrary(store, Offload(1, 8, "prompt store"), Offload(1, 8, "prompt store's changes"))
    yield library
    library.close()


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def delete_one(library: PromptLibrary) -> str:
    """The digest of a version that was published and deleted."""
    for seed in (1, 2):
        values, manifest = example_prompt(seed)
        library.store.publish("acme", "t", values, manifest)
    library.store.delete_version("acme", "t", 2)
    return manifest.digest


def test_a_deleted_version_is_collected_after_its_grace_period(
    library: PromptLibrary, metrics: Metrics, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    digest = delete_one(library)

    async def scenario() -> None:
        ticks = Ticks(clock)
        upkeep = Upkeep(library, metrics.api, HOUR, 100.0, ticks.sleep, now=clock)
        job = asyncio.ensure_future(upkeep.run())
        assert await ticks.asked() == SOON_SECONDS  # a server that restarts often collects, too
        assert upkeep.last is None is library.store.upkeep_due_at()
        assert await ticks.next() == HOUR
        assert counted(metrics, "chorus_collected_blobs_total") == 0
        assert upkeep.last == Collection(clock(), "collected")
        assert library.store.upkeep_due_at() == clock() + timedelta(seconds=HOUR)
        library.store.values(digest)
        assert await ticks.next() == HOUR
        assert upkeep.last.blobs == 1 and upkeep.last.freed_bytes > 0
        await settle(job)

    with caplog.at_level(logging.INFO, "chorus.upkeep"):
        asyncio.run(scenario())
    assert counted(metrics, "chorus_collected_blobs_total") == 1
    assert counted(metrics, "chorus_collected_bytes_total") > 0
    assert counted(metrics, "chorus_collections_total", ok="true") == 2
    assert [record.levelname for record in caplog.records] == ["INFO"]  # the one that found something
    with pytest.raises(StoreError):
        library.store.values(digest)


def test_it_runs_on_a_thread_of_the_store(
    library: PromptLibrary, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def collect(*, grace_seconds: float, audit_days: int | None) -> CollectReport:
        threads.append(threading.current_thread().name)
        assert audit_days == 30
        return CollectReport()

    monkeypatch.setattr(library.store, "collect", collect)
    assert asyncio.run(Upkeep(library, metrics.api, HOUR, 0.0, audit_days=30).collect())
    assert threads[0].startswith("chorus-prompt-store")


@pytest.mark.parametrize("error", [StoreError("the disk is full"), RuntimeError("a defect")])
def test_a_failure_is_logged_counted_and_tried_again_soon(
    library: PromptLibrary,
    metrics: Metrics,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    outcomes: list[CollectReport | Exception] = [error, CollectReport()]

    def collect(*, grace_seconds: float, audit_days: int | None) -> CollectReport:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(library.store, "collect", collect)

    async def scenario() -> None:
        ticks = Ticks(clock)
        upkeep = Upkeep(library, metrics.api, HOUR, 0.0, ticks.sleep)
        job = asyncio.ensure_future(upkeep.run())
        await ticks.asked()
        assert await ticks.next() == SOON_SECONDS
        why = str(error) if isinstance(error, StoreError) else "RuntimeError"
        assert upkeep.last is not None and (upkeep.last.outcome, upkeep.last.message) == ("failed", why)
        assert await ticks.next() == HOUR
        await settle(job)

    asyncio.run(scenario())
    assert counted(metrics, "chorus_collections_total", ok="false") == 1
    assert counted(metrics, "chorus_collections_total", ok="true") == 1
    assert str(error) in caplog.text and outcomes == []
    # A store that says why is a sentence; anything else is a defect, with its traceback.
    assert ("Traceback" in caplog.text) is not isinstance(error, StoreError)


def test_a_refusal_waits_for_an_operator(
    tmp_path: Path, metrics: Metrics, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A fresh database beside old blobs: one line each interval, no traceback, and nothing removed."""
    with closing(PromptStore.open(tmp_path, clock=clock)) as before:
        before.publish("acme", "t", *example_prompt(1))
    (tmp_path / "chorus.db").unlink()
    clock.advance(2 * HOUR)
    library = PromptLibrary(
        PromptStore.open(tmp_path, clock=clock), Offload(1, 8, "prompt store"), Offload(1, 8, "changes")
    )
    caplog.clear()

    async def scenario() -> None:
        ticks = Ticks(clock)
        upkeep = Upkeep(library, metrics.api, HOUR, HOUR, ticks.sleep)
        job = asyncio.ensure_future(upkeep.run())
        assert counted(metrics, "chorus_collections_total", ok="refused") == 0
        assert await ticks.asked() == SOON_SECONDS
        assert await ticks.next() == HOUR
        assert await ticks.next() == HOUR
        assert upkeep.last is not None and upkeep.last.outcome == "refused"
        assert "chorus store adopt" in upkeep.last.message
        await settle(job)

    asyncio.run(scenario())
    assert counted(metrics, "chorus_collections_total", ok="refused") == 2
    assert counted(metrics, "chorus_collections_total", ok="false") == 0
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("ERROR", None)] * 2
    assert "chorus store adopt" in caplog.text
    assert library.store.check().orphans == 1
    library.close()


def test_a_short_interval_is_kept(library: PromptLibrary, metrics: Metrics) -> None:
    async def scenario() -> float:
        ticks = Ticks()
        job = asyncio.ensure_future(Upkeep(library, metrics.api, 5.0, 0.0, ticks.sleep).run())
        first = await ticks.asked()
        await settle(job)
        return first

    assert asyncio.run(scenario()) == 5.0


def test_the_end_waits_for_a_collection_under_way(
    library: PromptLibrary, metrics: Metrics, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def collect(*, grace_seconds: float, audit_days: int | None) -> CollectReport:
        begun.set()
        assert may_end.wait(300)
        ended.set()
        return CollectReport()

    monkeypatch.setattr(library.store, "collect", collect)

    async def scenario() -> None:
        ticks = Ticks(clock)
        job = asyncio.ensure_future(Upkeep(library, metrics.api, HOUR, 0.0, ticks.sleep).run())
        await ticks.asked()
        ticks._go.put_nowait(None)
        assert await asyncio.to_thread(begun.wait, 300)
        await settle(job)  # the loop does not wait for the thread
        assert job.cancelled() and not ended.is_set()

    asyncio.run(scenario())
    may_end.set()
    library.close()  # this does, before the store is closed
    assert ended.is_set()


@pytest.fixture
def shared(tmp_path: Path, clock: FakeClock) -> Iterator[list[PromptLibrary]]:
    """Two servers' libraries of one store."""
    libraries = [
        PromptLibrary(
            PromptStore.open(tmp_path, clock=clock), Offload(1, 8, "store"), Offload(1, 8, "changes")
        )
        for _ in range(2)
    ]
    yield libraries
    for library in libraries:
        library.close()


def test_of_two_servers_one_collects_and_whoever_asks_first_is_next(
    shared: list[PromptLibrary], metrics: Metrics, clock: FakeClock
) -> None:
    async def scenario() -> None:
        one, two = Ticks(clock), Ticks()
        jobs = [
            asyncio.ensure_future(Upkeep(library, metrics.api, HOUR, 0.0, ticks.sleep).run())
            for library, ticks in zip(shared, (one, two), strict=True)
        ]
        assert await one.asked() == await two.asked() == SOON_SECONDS
        assert await one.next() == HOUR
        assert await two.next() == HOUR  # until it is due again
        assert counted(metrics, "chorus_collections_total", ok="true") == 1
        clock.advance(HOUR)
        assert await two.next() == HOUR
        assert counted(metrics, "chorus_collections_total", ok="true") == 2
        await settle(*jobs)

    asyncio.run(scenario())


def test_a_server_that_died_at_work_holds_nobody_up_for_longer_than_an_interval(
    shared: list[PromptLibrary], metrics: Metrics, clock: FakeClock
) -> None:
    assert shared[0].store.claim_upkeep(HOUR)[0] == 0  # and nothing more is heard of it

    async def scenario() -> None:
        ticks = Ticks(clock)
        job = asyncio.ensure_future(Upkeep(shared[1], metrics.api, HOUR, 0.0, ticks.sleep).run())
        assert await ticks.asked() == SOON_SECONDS
        assert await ticks.next() == HOUR - SOON_SECONDS
        assert await ticks.next() == HOUR
        assert counted(metrics, "chorus_collections_total", ok="true") == 1
        await settle(job)

    asyncio.run(scenario())


def test_it_sleeps_no_longer_than_its_own_interval(
    shared: list[PromptLibrary], metrics: Metrics, clock: FakeClock
) -> None:
    """However long the one that collected last waits."""
    assert shared[0].store.claim_upkeep(1.5 * HOUR)[0] == 0

    async def scenario() -> None:
        ticks = Ticks(clock)
        job = asyncio.ensure_future(Upkeep(shared[1], metrics.api, HOUR, 0.0, ticks.sleep).run())
        await ticks.asked()
        assert await ticks.next() == HOUR
        assert await ticks.next() == HOUR / 2 - SOON_SECONDS
        await settle(job)

    asyncio.run(scenario())


def test_while_the_database_is_away_it_is_asked_again_soon(
    library: PromptLibrary,
    metrics: Metrics,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(seconds: float) -> tuple[float, None]:
        raise StoreError("the database is away")

    async def scenario() -> None:
        ticks = Ticks(clock)
        job = asyncio.ensure_future(Upkeep(library, metrics.api, HOUR, 0.0, ticks.sleep).run())
        await ticks.asked()
        with monkeypatch.context() as patch:
            patch.setattr(library.store, "claim_upkeep", away)
            assert await ticks.next() == SOON_SECONDS
        assert await ticks.next() == HOUR
        await settle(job)

    asyncio.run(scenario())
    assert "the database is away" in caplog.text


def test_a_check_of_the_store_is_on_a_thread_of_its_own_and_told(
    library: PromptLibrary, metrics: Metrics, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time. The loop, and the store's other threads, go on meanwhile."""
    delete_one(library)
    go, begun, check = threading.Event(), threading.Event(), PromptStore.check

    def held(store: PromptStore, **options: Any) -> CheckReport:
        begun.set()
        assert go.wait(300)
        return check(store, **options)

    monkeypatch.setattr(PromptStore, "check", held)

    async def scenario() -> None:
        upkeep = Upkeep(library, metrics.api, HOUR, 0.0, now=clock)
        first = upkeep.begin_check()
        await asyncio.to_thread(begun.wait, 300)
        assert first.ended_at is None and upkeep.begin_check() is first
        assert (await library.read(library.store.get_task, "acme", "t")).versions == 1
        clock.advance(60)
        go.set()
        ended = await over(upkeep)
        assert ended.report is not None and ended.report.clean and ended.report.versions == 1
        assert (ended.started_at, ended.ended_at) == (first.started_at, clock())
        assert (ended.found, ended.message) == ({}, "")
        library.store.publish("acme", "u", *example_prompt(5))
        with library.store._database.write(EVERY_TENANT) as connection:
            connection.execute(update(blobs).where(blobs.c.reference_count > 0).values(reference_count=7))
        upkeep.begin_check()
        ended = await over(upkeep)
        assert ended.report is not None and ended.found == {"wrong_count": 2}
        assert [problem.kind for problem in ended.report.problems] == ["wrong_count"] * 2
        monkeypatch.setattr("chorus_server.api.upkeep.MOST_SHOWN", 1)
        upkeep.begin_check()
        ended = await over(upkeep)
        assert ended.report is not None and ended.found == {"wrong_count": 2}
        assert len(ended.report.problems) == 1
        upkeep.close()

    asyncio.run(scenario())


async def over(upkeep: Upkeep) -> StoreCheck:
    """The check, once it has ended."""
    assert upkeep._checking is not None
    await upkeep._checking
    assert upkeep.check is not None
    return upkeep.check


def test_a_check_that_fails_says_why_and_another_may_be_made(
    library: PromptLibrary,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(error: Exception) -> Callable[..., CheckReport]:
        def check(**_: Any) -> CheckReport:
            raise error

        return check

    async def scenario() -> None:
        upkeep = Upkeep(library, metrics.api, HOUR, 0.0)
        for error, told in ((StoreError("away"), "away"), (ZeroDivisionError("secret"), "ZeroDivisionError")):
            monkeypatch.setattr(library.store, "check", broken(error))
            upkeep.begin_check()
            ended = await over(upkeep)
            assert (ended.report, ended.message) == (None, told) and ended.ended_at is not None
        upkeep.close()

    asyncio.run(scenario())
    assert caplog.text.count("the check of the store failed") == 2


def test_a_check_under_way_ends_with_the_process(
    library: PromptLibrary, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its next blob: there may be a million."""
    delete_one(library)
    upkeep = Upkeep(library, metrics.api, HOUR, 0.0)
    closing = threading.Thread(target=upkeep.close)
    problem = Checker._blob_problem
    read: list[str] = []

    def held(checker: Checker, digest: str) -> tuple[str, str] | None:
        read.append(digest)
        closing.start()
        while not upkeep._closing:
            pass
        return problem(checker, digest)

    monkeypatch.setattr(Checker, "_blob_problem", held)

    async def scenario() -> None:
        upkeep.begin_check()
        ended = await over(upkeep)
        assert ended.report is None and "shutting down" in ended.message

    library.store.publish("acme", "t", *example_prompt(3))
    asyncio.run(scenario())
    closing.join()
    assert len(read) == 1
