"""Two runners and one job: whoever's lease ran out writes nothing more, however late it wakes up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from service_tools import (
    FINGERPRINT,
    TENANT,
    Watcher,
    document,
    done,
    events,
    finished,
    jsonl,
    running,
    submit,
    until,
    upload,
)

from prompts_store.errors import LeaseLostError, StoreError
from prompts_store.store import PromptStore
from prompts_store.testing import FakeClock
from server.jobs.held import HeldJob, JobCancelledError, ServiceStoppingError

pytestmark = pytest.mark.usefixtures("compile_cache")


class Frozen:
    """The store of a process that stands still: no lease is renewed, and its looks come back empty."""

    def __init__(self, store: PromptStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def renew_lease(self, *_: Any) -> Any:
        raise StoreError("The process stands still.")


def test_a_runner_that_wakes_up_too_late_writes_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    store = PromptStore.open(tmp_path, clock=clock)
    file = upload(store, jsonl())
    whole = done(store, tmp_path, document(file, task="whole"))
    late, prompt = Watcher(hold_after=9), Watcher()
    job = submit(store, document(file))
    frozen: Any = Frozen(store)
    with running(frozen, tmp_path, watcher=late):
        assert late.reached.wait(300)
        until(store, job, lambda found: found.progress.get("checkpoint_step", 0) >= 2)
        assert store.claim_job("tuning", "other", 20, FINGERPRINT) is None, "the lease holds while it lasts"
        clock.advance(100)
        with running(store, tmp_path, watcher=prompt):
            over = finished(store, job)
        assert over.status == "succeeded" and over.attempt == 2 and prompt.steps < 6
        written = events(store, job)
        late.release.set()
        for _ in range(3000):
            if late.endings:
                break
            until(store, job, lambda found: True)
    assert late.endings == ["lost"] and prompt.endings == ["succeeded"]
    assert events(store, job) == written
    assert over.result["prompts"][0]["digest"] == whole.result["prompts"][0]["digest"]
    assert len(store.list_versions(TENANT, "letters").items) == 1


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


def _held(tmp_path: Path, scripted: Scripted, clock: FakeSeconds) -> HeldJob:
    import threading

    store = PromptStore.open(tmp_path)
    job = submit(store, document(upload(store, jsonl())))
    claimed = store.claim_job("tuning", "me", 20, FINGERPRINT)
    assert claimed is not None and claimed[0].id == job.id
    stopping = threading.Event()
    stopping.wait = clock.wait  # type: ignore[method-assign]
    return HeldJob(scripted, *claimed, 20.0, 30.0, stopping, clock)  # type: ignore[arg-type]


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


def test_an_outage_is_waited_out_with_growing_pauses(tmp_path: Path) -> None:
    clock, away = FakeSeconds(), StoreError("away")
    held = _held(
        tmp_path, Scripted(away, away, away, away, type("Job", (), {"cancel_requested": True})), clock
    )
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
