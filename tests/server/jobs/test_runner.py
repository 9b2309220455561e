"""A runner that looks for jobs, and ends when it is told to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from chorus_server.jobs.endings import AttemptEnding
from chorus_server.jobs.leased import LeasedJob
from chorus_server.jobs.runner import JobRunner, RunnerConfig
from prompts_store.store import PromptStore


class NoJobs(JobRunner):
    """Must not begin any."""

    def attempt(self, held: LeasedJob) -> AttemptEnding:
        raise AssertionError(held.job.id)


def hourly(tmp_path: Path) -> RunnerConfig:
    return RunnerConfig(folder=tmp_path / "jobs", owner="me", look_seconds=3600)


def test_a_runner_that_is_told_to_stop_just_before_it_looks_neither_sleeps_nor_takes_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It forgets then that it was woken. It would look again an hour later."""
    store = PromptStore.open(tmp_path)
    job = store.create_job("acme", "batch", {"base_fingerprint": "base"})
    runner = NoJobs(store, "batch", "base", "float32", hourly(tmp_path))
    monkeypatch.setattr(runner, "_sweep", runner.begin_to_stop)
    runner.start()
    assert runner.stop(300)
    assert store.get_job("acme", job.id).status == "queued"


def test_control_a_runner_that_is_not_told_to_stop_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PromptStore.open(tmp_path)
    runner = NoJobs(store, "batch", "base", "float32", hourly(tmp_path))
    looked = threading.Event()
    monkeypatch.setattr(runner, "_take", lambda: bool(looked.set()))
    runner.start()
    assert looked.wait(300) and runner._thread.is_alive()
    assert runner.stop(300)
