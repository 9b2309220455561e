"""Evaluations in `chorus serve`, a process of its own: killed, stopped, taken over, seen from the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prompts_store.jobs.records import Job, JobKind
from prompts_store.store import PromptStore
from prompts_store.testing import file_bytes
from tests.end_to_end.served import CHORUS, TINY, Served
from tests.end_to_end.test_tuning_tiny import until

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROWS = 64 * 12
_AN_HOUR = timedelta(hours=1)
BASE: dict[str, Any] = {"base": {"instruction": "was it good", "template": "{text}"}}


def rows() -> bytes:
    texts = ["the film was good", "it was a bad cat", "we saw the sun", "they ran home then"]
    lines = (
        {"text": f"{texts[n % 4]} {chr(97 + n % 26)}", "label": "yes" if n % 3 else "no"} for n in range(ROWS)
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def start(server: Served, file: str) -> str:
    second = {"base": {"instruction": "a film", "template": "{text}"}}
    body = {"subjects": [BASE, second], "file": file, "labels": ["no", "yes"]}
    found: str = server.post("/v1/evaluations", body)["id"]
    return found


def upload(server: Served) -> str:
    answer = server.http.post("/v1/files", files={"file": ("rows.jsonl", rows())})
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


def is_over(job: Job) -> bool:
    return job.finished_at is not None


def is_between(job: Job) -> bool:
    """Some blocks are finished, and others are not."""
    return is_over(job) or job.progress.get("rows", 0) >= 128


def predictions(store: PromptStore, job: Job) -> bytes:
    assert job.status == "succeeded", job.error
    return file_bytes(store, "default", job.result["predictions"])


@pytest.mark.timeout(900)
def test_a_killed_evaluation_ends_with_the_same_bytes(
    tiny_model: Path, compile_cache: Path, tmp_path: Path
) -> None:
    options = {"model": tiny_model, "compile_cache_dir": compile_cache, **TINY}
    store = PromptStore.open(tmp_path)
    with Served(tmp_path, **options) as server:
        server.wait_ready()
        file = upload(server)
        expected = predictions(store, whole := until(store, start(server, file), is_over))
        assert server.metric("chorus_compiles_total", cause="request") == 0
        # Killed in the middle.
        job = start(server, file)
        until(store, job, is_between)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    killed = store.get_job("default", job)
    assert killed.status in ("preparing", "running") and 128 <= killed.progress["rows"] < ROWS
    free(store, killed)
    with Served(tmp_path, **options) as server:
        server.wait_ready()
        # Stopped in order: it is given back, and goes on from there.
        until(store, job, lambda found: is_over(found) or found.progress["rows"] > killed.progress["rows"])
        assert server.stop() == 0
    given_back = store.get_job("default", job)
    assert given_back.status == "queued" and given_back.progress["rows"] > killed.progress["rows"]
    with Served(tmp_path, **options) as server:
        server.wait_ready()
        over = until(store, job, is_over)
        assert over.attempt == 4, "one of the test's own"
        assert predictions(store, over) == expected
        assert over.result | {"predictions": ""} == whole.result | {"predictions": ""}
        until(store, job, lambda _: not list((tmp_path / "jobs").glob("*/*")))  # removed after its end
        told = server.http.get(f"/v1/evaluations/{job}/events", params={"follow": "false"}).json()["events"]
        assert [each["seq"] for each in told] == list(range(1, len(told) + 1))
        _see_from_the_command(server, tmp_path)
    store.close()


def free(store: PromptStore, job: Job, kind: JobKind = "evaluation") -> None:
    """Let the lease of a dead process run out now: another one takes the job and gives it back."""
    base = job.spec["base_fingerprint"]
    now, store._clock = store._clock, lambda: now() + _AN_HOUR
    claimed = store.claim_job(kind, "test", 1.0, base, "float32")
    store._clock = now
    assert claimed is not None and claimed[0].id == job.id
    store.release_job(claimed[1])


def _see_from_the_command(server: Served, folder: Path) -> None:
    (folder / "few.jsonl").write_bytes(b"".join(rows().splitlines(keepends=True)[:40]))
    (folder / "shown.jsonl").write_bytes(b"".join(rows().splitlines(keepends=True)[-20:]))
    command = [
        str(CHORUS), "--url", str(server.http.base_url), "evaluate", "base", str(folder / "few.jsonl"),
        "--instruction", "was it good", "--few-shot", "2", "--examples", str(folder / "shown.jsonl"),
        "--label", "no", "--label", "yes", "--metric", "accuracy", "--metric", "f1_binary",
        "--chart", str(folder / "chart.svg"), "--predictions", str(folder / "said.jsonl"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "40 rows" in done.stdout and "f1_binary" in done.stdout and "predictions: file-" in done.stdout
    assert (folder / "chart.svg").read_text().startswith("<svg ")
    assert len((folder / "said.jsonl").read_text().splitlines()) == 40
    bad = [
        *command[:4],
        "base",
        str(folder / "chart.svg"),
        "--format",
        "jsonl",
        "--label",
        "no",
        "--label",
        "yes",
    ]
    failed = subprocess.run(bad, capture_output=True, text=True, timeout=300, check=False)
    assert failed.returncode == 1 and "row 1" in failed.stderr, failed.stderr
