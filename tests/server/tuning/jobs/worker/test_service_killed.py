"""kill -9 anywhere in a job; whoever takes it up ends with the same bits, and with one version."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prompts_store.store import PromptStore
from tests.places import IMPORTS, python_module
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
from tests.server.tuning.jobs.worker import service_kill_child
from tests.server.tuning.jobs.worker.service_kill_child import LEASE_SECONDS

# In turn, on one job. A step is 2 slices, an evaluation 3; a checkpoint is 2 syncs and 2 renames.
DEATHS = [
    ("slice", "3"),
    ("file", "2"),
    ("slice", "8"),
    ("file", "5"),
    ("before", "publish"),
    ("after", "publish"),
    ("before", "finish_job"),
]


@contextmanager
def _workers(folder: Path, compiled: Path) -> Iterator[Callable[[str, str], int]]:
    """Runs a worker to its death and returns its exit code; they share the time that imports take."""
    with subprocess.Popen(
        [*python_module(service_kill_child), str(folder), str(compiled)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, **IMPORTS, "JAX_PLATFORMS": "cpu"},
    ) as running:  # fmt: skip
        assert running.stdin is not None and running.stdout is not None

        def die(how: str, what: str) -> int:
            running.stdin.write(f"{how} {what}\n")
            return int(running.stdout.readline())

        yield die


@pytest.mark.timeout(600)
def test_a_killed_job_ends_with_the_same_bits_and_one_version(tmp_path: Path, compile_cache: Path) -> None:
    whole_store = PromptStore.open(tmp_path / "whole")
    whole = done(whole_store, tmp_path / "whole", document(upload(whole_store, jsonl())))
    folder = tmp_path / "killed"
    store = PromptStore.open(folder)
    job = submit(store, document(upload(store, jsonl())))
    steps: list[int] = []
    with _workers(folder, compile_cache) as die:
        for how, what in DEATHS:
            assert die(how, what) == -signal.SIGKILL, (how, what)
            steps.append(store.get_job(TENANT, job.id).progress.get("checkpoint_step", 0))
            assert store.get_job(TENANT, job.id).finished_at is None
    assert sorted(steps) == steps and steps[-1] == 6, steps
    watcher = Watcher()
    with running(store, folder, watcher=watcher, lease_seconds=LEASE_SECONDS):
        over = finished(store, job)
    assert over.status == "succeeded" and over.attempt == len(DEATHS) + 1
    assert watcher.made == 0, "everything was in the last checkpoint"
    assert over.result["prompts"][0]["digest"] == whole.result["prompts"][0]["digest"]
    assert len(store.list_versions(TENANT, "letters").items) == 1
    assert not list((folder / "tuning").glob("*/job-*"))
    # The control: the same data and recipe with another seed has other bits.
    other = done(whole_store, tmp_path / "whole", document(upload(whole_store, jsonl()), seed=4))
    assert other.result["prompts"][0]["digest"] != whole.result["prompts"][0]["digest"]
    kinds = [kind for kind, _ in events(store, job)]
    assert kinds[-1] == "status" and kinds.count("published") >= 1
