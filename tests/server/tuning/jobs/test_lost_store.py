"""A store that goes away again and again while a job runs: every stage of the job waits for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from chorus_server.jobs import leased
from prompts_store.errors import StoreError
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from prompts_store.testing import FakeClock
from tests.server.tuning.jobs.service_tools import (
    TENANT,
    Watcher,
    document,
    done,
    events,
    finished,
    jsonl,
    running,
    submit,
    upload,
)

pytestmark = pytest.mark.usefixtures("compile_cache")

READS = {"get_file", "local_file", "resolve", "values"}
WRITES = {"update_job", "append_events", "publish", "publish_ensemble", "set_alias", "finish_job"}


class Stuttering:
    """A store that fails every other call of each method, and is away for longer than a lease each time.

    Args:
        when: `before` the call has done anything, or `after` it has: only its answer is lost.
    """

    def __init__(self, store: PromptStore, clock: FakeClock, when: Literal["before", "after"]) -> None:
        self._store = store
        self._clock = clock
        self._when = when
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.calls[name] += 1
                fails = self.calls[name] % 2 == 1 and name in READS | WRITES
            found = method(*arguments, **named) if self._when == "after" or not fails else None
            if fails:
                self._clock.advance(100)
                raise StoreError("The database does not answer.")
            return found

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    monkeypatch.setattr(leased, "_PAUSE_SECONDS", 0.001)
    return FakeClock()


def _job(store: PromptStore, task: str) -> dict[str, Any]:
    """One that reads and writes everything that a job can."""
    sent = {"ensemble": 2, "ensemble_name": f"{task}-two", "initial_prompt": "source", "promote": True}
    return document(upload(store, jsonl()), task=task, **sent)


def _beside(store: PromptStore, folder: Path, stuttering: Stuttering) -> tuple[Job, Job]:
    """The same job on a store that is there, and on one that comes and goes."""
    assert done(store, folder, document(upload(store, jsonl()), task="source")).status == "succeeded"
    whole = done(store, folder, _job(store, "whole"))
    job, watcher = submit(store, _job(store, "waited")), Watcher()
    with running(stuttering, folder, watcher=watcher):  # type: ignore[arg-type]
        return whole, finished(store, job)


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_stage_waits_for_a_store_that_is_away(
    tmp_path: Path, clock: FakeClock, when: Literal["before", "after"]
) -> None:
    store = PromptStore.open(tmp_path, clock=clock)
    stuttering = Stuttering(store, clock, when)
    whole, over = _beside(store, tmp_path, stuttering)
    assert over.status == "succeeded", over.error
    assert {name for name in READS | WRITES if stuttering.calls[name]} == READS | WRITES, "all were asked"
    assert over.attempt == 1, "a lease that ran out while nobody could take it is good"
    made, expected = ([each["digest"] for each in job.result["prompts"]] for job in (over, whole))
    assert made == expected and len(store.list_versions(TENANT, "waited").items) == 2
    assert over.result["ensemble"]["version"] == 1
    statuses = [data["status"] for kind, data in events(store, over) if kind == "status"]
    assert statuses == ["queued", "preparing", "running", "succeeded"]


def test_a_job_that_does_not_wait_for_its_reads_fails(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(leased.LeasedJob, "store", property(lambda self: self._store))
    store = PromptStore.open(tmp_path, clock=clock)
    _, over = _beside(store, tmp_path, Stuttering(store, clock, "before"))
    assert over.status == "failed" and over.error is not None and over.error["code"] == "store_unavailable"
