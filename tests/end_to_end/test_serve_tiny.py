"""`chorus serve` on a tiny random T5: a real process, a real model, real sockets."""

from __future__ import annotations

import io
import re
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.end_to_end.served import TINY, Served
from tests.server.api.api_harness import eventually

pytestmark = pytest.mark.usefixtures("compiled_quickly")
BINARY = {"content-type": "application/octet-stream"}
WIDTH = 26


def npy(rows: int, seed: int, scale: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, (scale * np.random.default_rng(seed).normal(size=(rows, WIDTH))).astype(np.float32))
    return buffer.getvalue()


def push(served: Served, task: str, rows: int, seed: int, **query: Any) -> dict[str, Any]:
    answer = served.http.post(
        f"/v1/tasks/{task}/versions", content=npy(rows, seed), headers=BINARY, params=query
    )
    assert answer.status_code in (200, 201), answer.text
    made: dict[str, Any] = answer.json()
    return made


@pytest.fixture(scope="module")
def stocked(served: Served) -> Served:
    for index in range(6):
        push(served, f"task-{index}", rows=1 + 3 * index, seed=index, label=["yes", "no"])
    return served


def test_the_start_tells_how_far_it_is(served: Served) -> None:
    text = "\n".join(served.lines)
    for words in ("listening on", "loading", "memory plan", "weights", "compiled", "ready at"):
        assert words in text, text
    first = re.search(r"(compiled|read) 1/", text)
    assert first is not None, text
    assert text.index("listening on") < text.index("memory plan") < first.start()


def test_a_mixed_batch_answers_as_each_alone(stocked: Served) -> None:
    requests = [
        {"task": f"task-{index % 6}", "input": text}
        for index, text in enumerate(
            ["good film", "a cat ran home", "it was bad", "rain", "we saw the sun"] * 3
        )
    ]
    requests.append({"task": None, "input": "the dog"})
    mixed = stocked.post("/v1/generate", {"requests": requests, "max_new_tokens": 8})["results"]
    for request, together in zip(requests, mixed, strict=True):
        alone = stocked.post("/v1/generate", request | {"max_new_tokens": 8})["results"][0]
        assert alone == together


def test_a_prompt_changes_the_answer(stocked: Served) -> None:
    body = {"input": "good film", "labels": ["yes", "no"]}
    scores = [
        stocked.post("/v1/classify", {"task": task, **body})["results"][0]["log_probabilities"]["yes"]
        for task in (None, "task-0", "task-1", "task-2")
    ]
    assert len(set(scores)) == 4


def test_every_kind_of_request_compiles_nothing(stocked: Served) -> None:
    before = stocked.metric("chorus_compiles_total")  # 0 where another server has kept every program
    assert stocked.metric("chorus_compile_seconds_count", cause="startup") > 0
    for text in ("a", "good film was bad", "the cat saw the dog and they ran home then"):
        for settings in (
            {},
            {"temperature": 0.8, "seed": 3, "n": 3, "top_k": 5, "top_p": 0.9, "logprobs": True},
            {"num_beams": 4, "n": 2, "length_penalty": 0.6},
            {"stream": True, "stop": ["o"]},
            {"min_new_tokens": 4},
        ):
            body = {"task": "task-3", "inputs": [text] * 3, "max_new_tokens": 6, **settings}
            assert stocked.http.post("/v1/generate", json=body).status_code == 200
        stocked.post(
            "/v1/classify", {"task": "task-5", "input": text, "labels": ["yes", "no", "cat", "dog", "it"]}
        )
    stocked.post("/v1/ensemble", {"tasks": [f"task-{index}" for index in range(4)], "input": "good film"})
    assert stocked.http.get("/v1/tasks/task-1/versions/1/neighbors").status_code == 200
    push(stocked, "late", rows=9, seed=50)
    stocked.post("/v1/generate", {"task": "late", "input": "x"})
    assert stocked.metric("chorus_compiles_total") == before
    assert stocked.metric("chorus_compiles_total", cause="request") == 0


def test_prompts_are_loaded_and_evicted_without_changing_answers(stocked: Served) -> None:
    body = {"task": "task-5", "input": "good film", "labels": ["yes", "no"]}
    before = stocked.post("/v1/classify", body)
    for seed in range(12):  # 64 rows hold only a few of these
        push(stocked, f"filler-{seed}", rows=12, seed=100 + seed)
        stocked.post("/v1/generate", {"task": f"filler-{seed}", "input": "x", "max_new_tokens": 2})
    assert stocked.metric("chorus_prompt_evictions_total") > 0
    after = stocked.post("/v1/classify", body)
    assert after["results"] == before["results"]


def test_neighbors_name_pieces_of_the_vocabulary(stocked: Served) -> None:
    rows = stocked.http.get("/v1/tasks/task-2/versions/1/neighbors", params={"top_k": 3}).json()["rows"]
    assert len(rows) == 7
    for row in rows:
        cosines = [neighbor["cosine"] for neighbor in row["neighbors"]]
        assert cosines == sorted(cosines, reverse=True)
        assert all(0 <= neighbor["id"] < 163 for neighbor in row["neighbors"])


def test_many_clients_at_once_leave_every_gauge_at_zero(stocked: Served) -> None:
    def one(index: int) -> int:
        body = {"task": f"task-{index % 6}", "input": "good film", "max_new_tokens": 4}
        return httpx2.post(f"{stocked.http.base_url}/v1/generate", json=body, timeout=300).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(64))) == {200}
    names = ("permits", "queued_requests", "slots_in_use", "encoder_memories", "prompt_rows_in_use")
    assert {name: stocked.metric(f"chorus_{name}") for name in names} == dict.fromkeys(names, 0.0)
    assert stocked.metric("chorus_batch_rows_sum") > stocked.metric("chorus_batch_rows_count")


def test_a_nan_prompt_is_refused_and_an_extreme_one_answers(stocked: Served) -> None:
    values = np.full((2, WIDTH), np.nan, np.float32)
    buffer = io.BytesIO()
    np.save(buffer, values)
    refused = stocked.http.post("/v1/tasks/nan/versions", content=buffer.getvalue(), headers=BINARY)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "not_finite"
    huge = stocked.http.post("/v1/tasks/huge/versions", content=npy(3, 1, 750.0), headers=BINARY)
    assert huge.status_code == 201
    assert stocked.post("/v1/generate", {"task": "huge", "input": "x"})["results"][0]["text"] is not None


def test_a_database_that_another_process_has_locked_is_told_and_holds_up_no_request(stocked: Served) -> None:
    """More changes wait than there are threads for them; the lock is let go when the answers are there."""

    def move(alias: int) -> int:
        url = f"{stocked.http.base_url}/v1/tasks/task-0/aliases/a{alias}"
        return httpx2.put(url, json={"version": 1}, timeout=300).status_code

    def trouble() -> Any:
        return stocked.http.get("/readyz").raise_for_status().json().get("store")

    lock = sqlite3.connect(stocked.data_dir / "chorus.db", isolation_level=None)
    with closing(lock), ThreadPoolExecutor(8) as pool:
        lock.execute("BEGIN IMMEDIATE")
        moves = [pool.submit(move, alias) for alias in range(8)]
        eventually(lambda: trouble() is not None)
        assert trouble()["status"] == "unwritable"
        for task in range(6):
            body = {"task": f"task-{task}", "inputs": ["good film", "bad"], "deadline_seconds": 20}
            assert len(stocked.post("/v1/classify", body)["results"]) == 2
        assert stocked.http.get("/v1/tasks").status_code == 200
        assert not any(move.done() for move in moves)
        lock.execute("ROLLBACK")
        assert {move.result() for move in moves} == {200}
    eventually(lambda: trouble() is None)


def test_malformed_http_is_answered_and_survived(stocked: Served) -> None:
    port = stocked.http.base_url.port
    for line in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/generate HTTP/1.1\r\nx\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=300) as client:
            client.sendall(line)
            assert client.recv(4096)[:10] in (b"HTTP/1.1 4", b"")
    assert stocked.http.get("/readyz").status_code == 200


def test_readiness_comes_after_compiling_and_prompts_survive_a_restart(
    tmp_path: Path, tiny_model: Path
) -> None:
    few = "input_lengths=48 batch_rows=1 blocks=48x8x4 score_buckets=2x16"
    options: dict[str, Any] = {"model": tiny_model, **TINY, "shapes": few}
    states = []
    with Served(tmp_path, **options) as server:
        server.http.base_url = httpx2.URL(server.wait_listening())
        pause = threading.Event()
        while True:
            answer = server.http.get("/readyz")
            states.append(answer.json()["status"])
            if answer.status_code == 200:
                break
            assert answer.status_code == 503 and server.http.get("/healthz").status_code == 200
            pause.wait(0.05)  # what it does meanwhile takes long enough to be seen
        assert states[0] in ("loading", "compiling") and "compiling" in states
        server.wait_ready()
        (programs,) = re.findall(r"ready at \S+ \((\d+) programs in [\d.]+ s\)", "\n".join(server.lines))
        push(server, "kept", rows=3, seed=1)
        first = server.post("/v1/generate", {"task": "kept", "input": "good film", "max_new_tokens": 8})
        assert server.stop() == 0
    again = Served(tmp_path, collect_grace_seconds=0, **options)
    with again:
        again.wait_ready()
        assert f"({programs} programs in " in again.lines[-1]
        assert f"{programs} of them from the compile cache)" in again.lines[-1]
        answer = again.post("/v1/generate", {"task": "kept", "input": "good film", "max_new_tokens": 8})
        assert answer["results"] == first["results"]
        push(again, "kept", rows=3, seed=2)
        assert again.http.delete("/v1/tasks/kept/versions/2").status_code == 204
        eventually(lambda: again.metric("chorus_collected_blobs_total") > 0)
        assert again.metric("chorus_collections_total", ok="false") == 0
        answer = again.post("/v1/generate", {"task": "kept", "input": "good film", "max_new_tokens": 8})
        assert answer["results"] == first["results"]
        assert again.stop() == 0  # while collecting


def test_keys_from_files_guard_a_served_model(tmp_path: Path, tiny_model: Path, compile_cache: Path) -> None:
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("k" * 40)
    token.write_text("t" * 40)
    options = {"api_key_file": key, "scrape_token_file": token, "http_host": "0.0.0.0", "tenant": "acme"}
    with Served(
        tmp_path / "data", model=tiny_model, compile_cache_dir=compile_cache, log_level="debug", **options,
        **dict(TINY),
    ) as server:  # fmt: skip
        server.wait_ready()
        server.http.base_url = httpx2.URL(f"http://127.0.0.1:{server.http.base_url.port}")
        body = {"task": None, "input": "x"}
        assert server.http.post("/v1/generate", json=body).status_code == 401
        headers = {"authorization": "Bearer " + "k" * 40}
        assert server.http.post("/v1/generate", json=body, headers=headers).status_code == 200
        scrape = {"authorization": "Bearer " + "t" * 40}
        assert server.http.get("/metrics", headers=scrape).status_code == 200
        assert server.http.get("/metrics").status_code == 401
        assert server.http.get("/v1/tasks", headers=scrape).status_code == 403
        assert server.http.get("/readyz").status_code == 200
    assert "k" * 40 not in "\n".join(server.lines) and "t" * 40 not in "\n".join(server.lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"http_host": "0.0.0.0"}, "--insecure-bind"),
        ({"model": "/nowhere/at/all"}, "nowhere"),
        ({"prompt_rows": 10**9}, "change prompt_rows"),
        ({"shapes": "blocks=16x8x4"}, "shapes.blocks: no block holds"),
        ({"shapes": f"input_lengths={','.join(map(str, range(2, 512)))}"}, "compiled programs, the limit is"),
        ({"http_port": 70_000}, "http_port"),
    ],
)
def test_a_start_that_cannot_work_says_why_and_exits(
    tmp_path: Path, tiny_model: Path, options: dict[str, Any], words: str
) -> None:
    server = Served(tmp_path, **({"model": tiny_model} | TINY | options))
    code = server.process.wait(1200)
    server.stop()
    text = "\n".join(server.lines)
    assert code == 1 and words in text, text
    assert "Traceback" not in text
