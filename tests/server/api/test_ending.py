"""The end of a server: what is under way is answered, or given up with one outcome; nothing new is let in."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from chorus_server.api.inference import calls
from chorus_server.api.lifecycle import Lifecycle
from chorus_server.errors import ShuttingDownError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.process import answer_requests
from prompts_store.files.writing import FileWriter
from tests.server.api.api_harness import (
    FINGERPRINT,
    ApiServer,
    Gate,
    error_of,
    eventually,
    gated_server,
    send,
)

TELL_SECONDS = 1.0
GENERATE = {"task": None, "input": "good", "max_new_tokens": 4}
LONG = "good film " * 4
SIZE = 4_000_000


@pytest.fixture
def api(
    tmp_path: Path, vocabulary: Vocabulary, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ApiServer]:
    monkeypatch.setattr(calls, "LONG_TEXT_BYTES", len(LONG) - 1)
    # However long a busy machine takes to tell them: it ends when all are told.
    honest = Lifecycle.give_up
    monkeypatch.setattr(Lifecycle, "give_up", lambda self, seconds: honest(self, 300.0))
    with gated_server(tmp_path, vocabulary, gate) as server:
        yield server


def ending(api: ApiServer, seconds: float, tell_seconds: float = TELL_SECONDS) -> Future[int]:
    """What the process does between a signal and closing its sockets."""
    assert api.loop is not None
    work = answer_requests(api.services, seconds, tell_seconds)
    return asyncio.run_coroutine_threadsafe(work, api.loop)


def half(api: ApiServer, path: str, kind: str, content: bytes = b'{"task": null, ') -> socket.socket:
    """A request whose body does not come to its end."""
    client = socket.create_connection(("127.0.0.1", api.port), timeout=300)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {SIZE}\r\n\r\n"
    )
    client.sendall(head.encode() + content)
    return client


def get(api: ApiServer, path: str) -> socket.socket:
    client = socket.socket()
    client.settimeout(300)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.connect(("127.0.0.1", api.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def answer(client: socket.socket) -> tuple[int, str]:
    """Status and content of what came."""
    with client, HTTPResponse(client) as response:
        response.begin()
        return response.status, response.read().decode()


def code(client: socket.socket) -> tuple[int, str]:
    status, content = answer(client)
    return status, json.loads(content)["error"]["code"]


def last_event(client: socket.socket) -> tuple[int, list[str], str]:
    """Status, names of all events, and the code of the last `error`."""
    status, content = answer(client)
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in content.split("\n\n")[:-1]
    ]
    errors = [json.loads(block["data"])["error"]["code"] for block in blocks if block["event"] == "error"]
    return status, [block["event"] for block in blocks], errors[-1]


@contextmanager
def hanging(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The store's and the text's threads do not come back from what they do until the block ends. Those of
    the store that have come there."""
    back, there = threading.Event(), list[int]()

    def hang(*_: Any, **__: Any) -> None:
        there.append(threading.get_ident())
        assert back.wait(300)

    monkeypatch.setattr(FileWriter, "write", hang)
    monkeypatch.setattr(api.store, "list_tasks", hang)
    for _ in range(2):
        api.services.text._pool.submit(back.wait, 300)
    try:
        yield there
    finally:
        back.set()


def test_whatever_is_unfinished_is_told_once(
    api: ApiServer, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.push("t")
    job = api.store.create_job("default", "tuning", {"base_fingerprint": FINGERPRINT}).id
    gate.close()
    lifecycle = api.services.lifecycle
    in_engine = {"one": send(api, "/v1/generate", GENERATE)}
    assert gate.waiting.wait(300)
    in_engine["a batch"] = send(api, "/v1/generate", {"task": None, "inputs": ["good", "bad"]})
    stream = send(api, "/v1/generate", GENERATE | {"stream": True})
    theirs = send(api, "/openai/v1/completions", {"model": "base", "prompt": "good", "stream": True})
    follower = get(api, f"/v1/tuning/jobs/{job}/events")
    waiting = {
        "half a body": half(api, "/v1/generate", "application/json"),
        "half an upload": half(api, "/v1/tasks/new/versions", "application/octet-stream"),
        "half a file": half(api, "/v1/files?name=a.tsv", "application/octet-stream"),
    }
    eventually(lambda: api.engine.stats().permits == 5 and api.services.feeds.polled == 1)
    with hanging(api, monkeypatch) as there:
        megabytes = b"x" * (2 << 20)
        waiting["a file that cannot be written"] = half(
            api, "/v1/files?name=b.tsv", "application/octet-stream", megabytes
        )
        eventually(lambda: len(there) == 1)
        readers = api.services.library._readers._pool._max_workers
        waiting["a store that hangs"] = get(api, "/v1/tasks")
        for number in range(1, readers):
            waiting[f"its other thread {number}"] = get(api, "/v1/tasks")
        waiting["a text in line"] = send(api, "/v1/generate", {"task": None, "input": LONG})
        every = len(in_engine) + len(waiting) + 3  # the streams and the follower
        eventually(lambda: lifecycle.unanswered == every and len(there) == 1 + readers)
        waiting["the store's queue"] = send(api, "/v1/generate", GENERATE | {"task": "t"})
        eventually(lambda: lifecycle.unanswered == every + 1)
        # The control: what the engine has is told, the rest would hold the process up.
        with monkeypatch.context() as broken:
            broken.setattr(Lifecycle, "give_up", lambda self, seconds: asyncio.sleep(0))
            assert ending(api, 0, 0.0).result(300) == every + 1
        eventually(lambda: lifecycle.unanswered == len(waiting) + 1)  # the follower, its clock is slow
        assert ending(api, 0).result(300) == len(waiting) + 1
        assert lifecycle.unanswered == 0
        for name, client in (in_engine | waiting).items():
            assert code(client) == (503, "shutting_down"), name
        status, names, last = last_event(stream)
        assert (status, names[0], last) == (200, "error", "shutting_down")
        status, content = answer(theirs)
        error, end = content.strip().split("\n\n")
        assert (status, end) == (200, "data: [DONE]")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert last_event(follower) == (200, ["status", "error"], "shutting_down")
    lines = api.engine.journal.entries()
    accepted = [line["id"] for line in lines if line["event"] == "accepted"]
    assert len(accepted) == 5
    outcomes = [(line["id"], line["outcome"]) for line in lines if line["event"] == "outcome"]
    assert sorted(outcomes) == sorted((name, "shutting_down") for name in accepted)
    metrics = generate_latest(api.services.metrics.registry).decode()
    assert 'chorus_requests_total{kind="generate",outcome="shutting_down"} 5.0' in metrics
    assert 'chorus_files_refused_total{reason="shutting_down"} 2.0' in metrics
    assert 'chorus_uploads_refused_total{reason="shutting_down"} 1.0' in metrics


def test_what_ends_in_time_is_answered_and_nothing_new_is_let_in(api: ApiServer, gate: Gate) -> None:
    gate.close()
    late = half(api, "/v1/generate", "application/json")
    early = send(api, "/v1/generate", GENERATE)
    eventually(lambda: api.services.lifecycle.unanswered == 2)
    api.services.lifecycle.draining()
    over = ending(api, 300)
    eventually(lambda: api.services.lifecycle.closed)
    api.services.lifecycle.ready()  # a start that comes to its end meanwhile changes nothing
    ready = api.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert api.http.get("/healthz").status_code == api.http.get("/metrics").status_code == 200
    for refused in (api.post("/v1/generate", GENERATE), api.http.get("/v1/tasks")):
        assert (refused.status_code, error_of(refused)["code"]) == (503, "shutting_down")
        assert refused.headers["retry-after"] == "1"
    late.sendall(b'"input": "good"}' + b" " * (SIZE - 31))
    gate.open.set()
    assert answer(early)[0] == answer(late)[0] == 200
    assert over.result(300) == 0
    assert api.engine.wait_idle(300)


def test_a_reader_that_stalls_is_given_up_too(api: ApiServer) -> None:
    job = api.store.create_job("default", "tuning", {"base_fingerprint": FINGERPRINT}).id
    claimed = api.store.claim_job("tuning", "a runner", 600, FINGERPRINT)
    assert claimed is not None
    for _ in range(10):
        api.store.append_events(claimed[1], [("step", {"text": "x" * 60_000})] * 10)
    follower = get(api, f"/v1/tuning/jobs/{job}/events")
    eventually(lambda: any(c.flow.write_paused for c in api.server.server_state.connections))
    assert ending(api, 0).result(300) == 1
    status, names, last = last_event(follower)
    assert (status, names[-1], last) == (200, "error", "shutting_down")
    assert 1 < len(names) < 100


def test_work_that_is_cancelled_by_another_is_not_taken_for_given_up() -> None:
    async def run() -> None:
        lifecycle = Lifecycle()

        async def work() -> None:
            with lifecycle.under_way():
                await asyncio.Event().wait()

        cancelled, given_up = asyncio.create_task(work()), asyncio.create_task(work())
        await asyncio.sleep(0)
        assert lifecycle.unanswered == 2
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await lifecycle.give_up(10)
        with pytest.raises(ShuttingDownError):
            await given_up
        assert lifecycle.unanswered == 0
        with pytest.raises(ShuttingDownError):  # what comes between two parts of an answer
            await work()

    asyncio.run(run())
