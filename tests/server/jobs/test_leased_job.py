"""A job under its lease: what waits for a store that is away, and what ends the work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from chorus_server.jobs.leased import JobCancelledError, LeasedJob, ServiceStoppingError
from prompts_store.database.job_tables import files
from prompts_store.errors import LeaseLostError, StoreError
from prompts_store.ids import FILE, new_id
from prompts_store.store import PromptStore


class Scripted:
    """A store whose answers are listed: an exception is raised, anything else returned."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls = 0

    def update_job(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _held(tmp_path: Path, scripted: Scripted, clock: FakeSeconds) -> LeasedJob:
    store = PromptStore.open(tmp_path)
    store.create_job("acme", "tuning", {"base_fingerprint": "base"})
    claimed = store.claim_job("tuning", "me", 20, "base")
    assert claimed is not None
    stopping = threading.Event()
    stopping.wait = clock.wait  # type: ignore[method-assign]
    return LeasedJob(scripted, *claimed, 20.0, 30.0, stopping, clock)  # type: ignore[arg-type]


class FakeSeconds:
    """A clock that passes by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float | None = None) -> bool:
        self.waits.append(seconds or 0.0)
        self.now += seconds or 0.0
        return False


def test_a_result_that_an_earlier_attempt_stored_is_found_among_many_files(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as store:
        store.create_job("acme", "tuning", {"base_fingerprint": "base"})
        claimed = store.claim_job("tuning", "me", 20, "base")
        assert claimed is not None
        held = LeasedJob(store, *claimed, 20.0, 30.0, threading.Event())
        name = f"{held.job.id}-mistakes.jsonl"
        made = held.save_file(name, iter([b"rows"]), max_bytes=9)
        with store._database.write("acme") as connection:  # 500 newer ones
            (row,) = connection.execute(select(files)).mappings()
            numbers = range(row["number"] + 1, row["number"] + 501)
            others = [{**row, "number": number, "id": new_id(FILE), "name": "other"} for number in numbers]
            connection.execute(insert(files), others)
        assert held.save_file(name, iter([b"rows"]), max_bytes=9) == made
        assert held.save_file(f"{held.job.id}-else.jsonl", iter([b"rows"]), max_bytes=9) != made


def test_a_file_that_somebody_else_calls_so_is_no_jobs_result(tmp_path: Path) -> None:
    with closing(PromptStore.open(tmp_path)) as store:
        store.create_job("acme", "tuning", {"base_fingerprint": "base"}, created_by="ann")
        claimed = store.claim_job("tuning", "me", 20, "base")
        assert claimed is not None
        held = LeasedJob(store, *claimed, 20.0, 30.0, threading.Event())
        name = f"{held.job.id}-predictions.jsonl"
        with store.write_file("acme", name, created_by="ann", made_by="key-eve", max_bytes=9) as writer:
            writer.write(b"forged")
            forged = writer.commit().id  # her key has the name of the one that made the job
        made = held.save_file(name, iter([b"rows"]), max_bytes=9)
        assert made != forged and store.get_file("acme", made).made_by == held.job.id
        assert held.save_file(name, iter([b"rows"]), max_bytes=9) == made
        with store._database.write("acme") as connection:  # as an older Chorus stored it
            connection.execute(update(files).where(files.c.id == made).values(made_by=None))
        assert held.save_file(name, iter([b"rows"]), max_bytes=9) == made


def test_an_outage_is_waited_out_with_growing_pauses(tmp_path: Path) -> None:
    clock, away = FakeSeconds(), StoreError("away")
    cancelled = type("Job", (), {"cancel_requested": True, "paused": False})
    held = _held(tmp_path, Scripted(away, away, away, away, cancelled), clock)
    held.update(progress={})
    assert clock.waits == pytest.approx([0.1, 0.2, 0.4, 0.8])
    with pytest.raises(JobCancelledError):
        held.check()


def test_a_long_outage_lets_the_job_go_and_a_refusal_is_told_at_once(tmp_path: Path) -> None:
    clock, away = FakeSeconds(), StoreError("away")
    held = _held(tmp_path / "long", Scripted(*[away] * 100), clock)
    with pytest.raises(LeaseLostError):
        held.update(progress={})
    assert 30 < clock.now < 40 and held.lost.is_set()
    with pytest.raises(LeaseLostError):
        held.check()
    refusal = StoreError("too large", code="invalid_input")
    scripted = Scripted(refusal, None)
    with pytest.raises(StoreError, match="too large"):
        _held(tmp_path / "refused", scripted, FakeSeconds()).update(progress={})
    assert scripted.calls == 1


def test_a_stop_is_seen(tmp_path: Path) -> None:
    held = _held(tmp_path, Scripted(), FakeSeconds())
    held.check()
    held._stopping.set()
    with pytest.raises(ServiceStoppingError):
        held.check()


def test_a_lease_is_kept_while_the_attempt_is_busy_and_no_longer(tmp_path: Path) -> None:
    store, clock, before = PromptStore.open(tmp_path), FakeSeconds(), set(threading.enumerate())
    store.create_job("acme", "tuning", {"base_fingerprint": "base"})
    claimed = store.claim_job("tuning", "me", 30, "base")
    assert claimed is not None
    held = LeasedJob(store, *claimed, 30.0, 30.0, threading.Event(), clock)
    first = held.lease.expires_at
    with held.kept(0.001):
        clock.now = 11.0
        until(lambda: held.lease.expires_at > first)
        store.cancel_job("acme", claimed[0].id)
        until(held.cancelled.is_set)
    assert "chorus-lease" not in [thread.name for thread in set(threading.enumerate()) - before]


def until(holds: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(30_000):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it never holds")
