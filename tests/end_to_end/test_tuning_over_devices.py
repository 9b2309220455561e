"""A server and a worker whose model lies over several simulated devices train prompts on it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chorus_server.engine.executor.testing import lively_tensors
from chorus_server.model.checkpoints.chorus_format import write_chorus
from chorus_server.model.checkpoints.vocabulary_files import find_vocabulary
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from tests.end_to_end.conftest import train_vocabulary
from tests.end_to_end.served import CHORUS, TINY, Served
from tests.end_to_end.test_tuning_tiny import STARTED, is_running, job_document, rows, until
from tests.server.engine.executor.mesh_child import WIDE

pytestmark = pytest.mark.usefixtures("compiled_quickly")
DEVICES = "--xla_force_host_platform_device_count=4"
ASKED = {"task": "mood", "inputs": ["the film was good a", "it was a bad cat b"]}
WARNED = re.compile(r"devices 2 x 2 -> 2 x 1")


def _warnings(store: PromptStore, job: str) -> str:
    return str([event.data for event in store.job_events("default", job) if event.kind == "warning"])


def _saved(job: Job) -> int:
    return int(job.progress.get("checkpoint_step", 0))


@pytest.fixture
def wide_model(tmp_path: Path) -> Path:
    """A random T5 of 16 heads, which two devices can share."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_chorus(
        folder, WIDE, lively_tensors(WIDE, 0, 2.5), dtype=np.dtype(np.float32), source="random",
        vocabulary=find_vocabulary(tmp_path, train_vocabulary(tmp_path)),
    )  # fmt: skip
    return folder


def test_a_server_on_four_devices_tunes_and_a_worker_on_two_goes_on(
    wide_model: Path, compile_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}")
    options: dict[str, Any] = {"model": wide_model, "compile_cache_dir": compile_cache}
    options |= {"layout": TINY["layout"]}
    # Two groups cannot share one row.
    shapes = {**TINY, "shapes": "input_lengths=48 batch_rows=4 blocks=48x8x4 score_buckets=2x16"}
    with Served(tmp_path, **shapes | options, data_devices=2, model_devices=2) as server:
        server.wait_ready()
        upload = server.http.post("/v1/files", files={"file": ("train.jsonl", rows())})
        file = upload.json()["id"]
        sent = job_document(file, steps=6, evaluate_every_steps=3)
        sent["recipe"] = {**sent["recipe"], "micro_batch_size": None}  # type: ignore[dict-item]
        made = server.post("/v1/tuning/jobs", sent)  # its dispatches are measured
        store = PromptStore.open(tmp_path)
        over = until(store, made["id"], lambda job: job.finished_at is not None)
        assert over.status == "succeeded", over.error
        alone = server.post("/v1/classify", ASKED)["results"]
        assert [each["version"] for each in alone] == [1, 1]
        long = server.post("/v1/tuning/jobs", job_document(file, steps=100_000, evaluate_every_steps=50_000))
        until(store, long["id"], lambda job: is_running(job) and _saved(job) > 0)
        for _ in range(5):  # bit for bit, beside a job
            assert server.post("/v1/classify", ASKED)["results"] == alone
        assert server.metric("chorus_compiles_total", cause="request") == 0
        assert server.stop() == 0
    left = store.get_job("default", long["id"])
    assert left.status == "queued" and _saved(left) > 0
    worker = Served(tmp_path, command=[str(CHORUS), "worker"], **options, data_devices=2)
    try:
        assert worker.wait_for(STARTED) == long["id"]
        gone_on = until(
            store, long["id"], lambda job: _saved(job) > _saved(left) or worker.process.poll() is not None
        )
        assert _saved(gone_on) > _saved(left), worker.lines
        assert WARNED.search(_warnings(store, long["id"]))
    finally:
        assert worker.stop() == 0, worker.lines
    store.close()
