"""A batch in `chorus serve`, a process of its own: killed, stopped, gone on with; and in the control, begun
anew where what it had answered is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from prompts_store.testing import file_bytes
from tests.end_to_end.served import TINY, Served
from tests.end_to_end.test_evaluation_tiny import free, is_over
from tests.end_to_end.test_tuning_tiny import until

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROWS = 1_000
NUMBER = "chorus_requests_total"


def lines() -> bytes:
    texts = ["the film was good", "it was a bad cat", "we saw the sun", "they ran home then"]
    bodies = (
        {"task": None, "input": f"{texts[n % 4]} {chr(97 + n % 26)}", "labels": ["no", "yes"]}
        for n in range(ROWS)
    )
    sent = (
        {"custom_id": f"row {n}", "method": "POST", "url": "/v1/classify", "body": body}
        for n, body in enumerate(bodies)
    )
    return "".join(json.dumps(each) + "\n" for each in sent).encode()


def answers(store: PromptStore, job: Job) -> list[tuple[str, str, float]]:
    """Id, label and probability of each line; the last bits depend on who shares a batch."""
    assert job.status == "succeeded", job.error
    found = []
    for text in file_bytes(store, "default", job.result["output_file"]).decode().splitlines():
        line = json.loads(text)
        (result,) = line["response"]["body"]["results"]
        found.append((line["custom_id"], result["label"], round(max(result["probabilities"].values()), 4)))
    return found


def kept(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("lines-*"))


def is_between(job: Job) -> bool:
    """Some lines are answered, and others are not."""
    return is_over(job) or job.progress.get("rows", 0) >= 64


@pytest.mark.timeout(900)
def test_a_killed_batch_asks_no_answered_line_again(
    tiny_model: Path, compile_cache: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"model": tiny_model, "compile_cache_dir": compile_cache, **TINY}
    store = PromptStore.open(tmp_path)
    with Served(tmp_path, **options) as server:
        server.wait_ready()
        answer = server.http.post("/v1/files", files={"file": ("lines.jsonl", lines())})
        body = {"file": answer.json()["id"], "endpoint": "/v1/classify"}
        expected = answers(store, until(store, server.post("/v1/batches", body)["id"], is_over))
        assert [name for name, _, _ in expected] == [f"row {n}" for n in range(ROWS)]
        assert server.metric("chorus_compiles_total", cause="request") == 0
        # Two are killed in the middle, one after the other.
        jobs = []
        for _ in range(2):
            jobs.append(server.post("/v1/batches", body)["id"])
        until(store, jobs[0], is_between)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    first, second = (store.get_job("default", job) for job in jobs)
    assert first.status == "running" and 64 <= kept(tmp_path / "jobs" / "default" / first.id) < ROWS
    store.cancel_job("default", second.id)
    free(store, first, "batch")
    # A line that was half written when the process was killed does not count.
    folder = tmp_path / "jobs" / "default" / first.id
    answered = kept(folder)
    (part,) = folder.glob("lines-*")
    with part.open("ab") as file:
        file.write(b'+12 0 {"id":')
    with Served(tmp_path, **options) as server:
        server.wait_ready()
        # Stopped in order: it is given back, and goes on from there.
        until(store, first.id, lambda job: is_over(job) or kept(folder) > answered)
        assert server.stop() == 0
    assert store.get_job("default", first.id).status == "queued" and kept(folder) < ROWS
    answered = kept(folder)
    with Served(tmp_path, **options) as server:
        server.wait_ready()
        over = until(store, first.id, is_over)
        assert answers(store, over) == expected
        assert server.metric(NUMBER, kind="score", outcome="ok") == ROWS - answered
        until(store, first.id, lambda _: not list((tmp_path / "jobs").glob("*/*")))  # removed after its end
        # The control: where the folder is lost, every line is asked again, with the same answers.
        server.post(f"/v1/batches/{second.id}/resume", {})
        until(store, second.id, is_between)
        server.post(f"/v1/batches/{second.id}/cancel", {})
        until(store, second.id, is_over)
        shutil.rmtree(tmp_path / "jobs" / "default" / second.id)
        before = server.metric(NUMBER, kind="score", outcome="ok")
        server.post(f"/v1/batches/{second.id}/resume", {})
        assert answers(store, until(store, second.id, is_over)) == expected
        assert server.metric(NUMBER, kind="score", outcome="ok") == before + ROWS
    store.close()
