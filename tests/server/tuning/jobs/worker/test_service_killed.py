"""kill -9 anywhere in a job; whoever takes it up ends with the same bits, and with one version."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prompts_store.jobs.records import Job
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
from tests.server.tuning.jobs.worker.service_kill_child import hours_later

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
# Two prompts up to step 3, then the better of them: in the second batch, and once the best became a version.
SWEEP = {"search": "halving", "eta": 2, "space": {"learning_rate": [0.3, 1.0]}}
DEATHS_OF_A_SWEEP = [("slice", "13"), ("after", "publish")]


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
    store._clock = hours_later(len(DEATHS) + 1)
    with running(store, folder, watcher=watcher):
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


def test_a_killed_sweep_goes_on_by_batch_and_chooses_the_same(tmp_path: Path, compile_cache: Path) -> None:
    whole_store = PromptStore.open(tmp_path / "whole")
    whole = done(whole_store, tmp_path / "whole", document(upload(whole_store, jsonl()), sweep=SWEEP))
    assert whole.status == "succeeded", whole.error
    folder = tmp_path / "killed"
    store = PromptStore.open(folder)
    job = submit(store, document(upload(store, jsonl()), sweep=SWEEP))
    steps: list[int] = []
    with _workers(folder, compile_cache) as die:
        for how, what in DEATHS_OF_A_SWEEP:
            assert die(how, what) == -signal.SIGKILL, (how, what)
            steps.append(store.get_job(TENANT, job.id).progress.get("checkpoint_step", 0))
    assert 3 * 2 <= steps[0] < steps[1] == 3 * 2 + 3, steps
    watcher = Watcher()
    store._clock = hours_later(len(DEATHS_OF_A_SWEEP) + 1)
    with running(store, folder, watcher=watcher):
        over = finished(store, job)
    assert over.status == "succeeded" and over.attempt == len(DEATHS_OF_A_SWEEP) + 1
    assert watcher.made == 0, "everything was in the checkpoints"
    assert _chosen(over) == _chosen(whole)
    assert len(store.list_versions(TENANT, "letters").items) == 1
    told = [(data["trial"], data["steps"]) for kind, data in events(store, job) if kind == "trial"]
    assert len(told) == len(set(told)) == 3, "each is told once, however often it was begun"
    assert not list((folder / "tuning").glob("*/job-*"))
    # The control: with another seed it makes other bits.
    other = done(whole_store, tmp_path / "whole", document(upload(whole_store, jsonl()), sweep=SWEEP, seed=4))
    assert _chosen(other)[0] != _chosen(whole)[0]


def _chosen(job: Job) -> tuple[str, list[tuple[Any, ...]]]:
    """The bytes of the version, and what was found of each trial but its seconds."""
    (digest,) = [prompt["digest"] for prompt in job.result["prompts"] if "digest" in prompt]
    trials = job.result["trials"]
    return digest, [(each["trial"], each["steps"], each["metric"], each["seeds"]) for each in trials]
