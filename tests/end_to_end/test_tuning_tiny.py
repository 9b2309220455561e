"""Tuning jobs in `chorus serve` and in `chorus worker`, as processes of their own."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from tests.end_to_end.served import CHORUS, TINY, Served

pytestmark = pytest.mark.usefixtures("compiled_quickly")
STARTED = re.compile(r"(job-\S+) begins")
WAITING = re.compile(r"(waiting for jobs)")


def rows() -> bytes:
    texts = [("the film was good", "yes"), ("it was a bad cat", "no")]
    return b"".join(
        json.dumps({"text": f"{text} {chr(97 + n)}", "label": label}).encode() + b"\n"
        for n in range(20)
        for text, label in texts
    )


def job_document(file: str, **recipe: int | float) -> dict[str, object]:
    knobs = {"steps": 12, "batch_size": 8, "micro_batch_size": 8, "prompt_length": 5, "max_input_tokens": 24}
    return {
        "task": "mood", "data": {"train": {"file": file}, "validation_rows": 6}, "labels": ["no", "yes"],
        "recipe": {**knobs, "evaluate_every_steps": 6, **recipe},
    }  # fmt: skip


def until(store: PromptStore, job_id: str, holds: Callable[[Job], bool]) -> Job:
    """The job once this holds of it."""
    pause = threading.Event()
    for _ in range(75_000):
        job = store.get_job("default", job_id)
        if holds(job):
            return job
        pause.wait(0.02)
    raise AssertionError(f"it never comes: {job}")


def is_running(job: Job) -> bool:
    return job.status == "running"


def test_a_server_tunes_a_worker_takes_over_and_the_version_is_served(
    tiny_model: Path, compile_cache: Path, tmp_path: Path
) -> None:
    options = {"model": tiny_model, "compile_cache_dir": compile_cache}
    with Served(tmp_path, **options, **TINY) as server:
        server.wait_ready()
        upload = server.http.post("/v1/files", files={"file": ("train.jsonl", rows())})
        assert upload.status_code == 201, upload.text
        file = upload.json()["id"]
        made = server.post("/v1/tuning/jobs", job_document(file))
        store = PromptStore.open(tmp_path)
        assert until(store, made["id"], lambda job: job.finished_at is not None).status == "succeeded"
        answer = server.post("/v1/classify", {"task": "mood", "input": "the film was good a"})
        assert answer["results"][0]["version"] == 1
        assert server.metric("chorus_compiles_total", cause="request") == 0
        assert server.metric("chorus_tuning_steps_total") == 12
        assert server.metric("chorus_tuning_runs_ended_total", ending="succeeded") == 1
        # One that the server does not end: it is given back when the server goes.
        long = server.post("/v1/tuning/jobs", job_document(file, steps=100_000, evaluate_every_steps=50_000))
        until(store, long["id"], lambda job: job.progress.get("step", 0) > 0)
        assert server.stop() == 0
    left = store.get_job("default", long["id"])
    assert left.status == "queued" and left.progress["checkpoint_step"] > 0
    worker = Served(tmp_path, command=[str(CHORUS), "worker"], **options)
    try:
        assert worker.wait_for(STARTED) == long["id"]
        until(store, long["id"], lambda job: is_running(job) or worker.process.poll() is not None)
        assert worker.process.poll() is None, worker.lines
    finally:
        assert worker.stop(signal.SIGHUP) == 0, worker.lines
    further = store.get_job("default", long["id"])
    assert further.status == "queued" and further.attempt == 2
    assert further.progress["checkpoint_step"] >= left.progress["checkpoint_step"]
    store.close()
