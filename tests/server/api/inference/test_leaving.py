"""Clients that leave, and an engine that dies. Barriers on the engine's thread, no sleeps."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chorus_server.engine.plans import StepPlan
from chorus_server.errors import EngineDeadError
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, Gate, error_of, eventually, gated_server, send


@pytest.fixture
def gated(tmp_path: Path, vocabulary: Vocabulary, gate: Gate) -> Iterator[ApiServer]:
    with gated_server(tmp_path, vocabulary, gate) as server:
        yield server
        gate.open.set()
        assert server.engine.wait_idle(300)
        assert server.engine.stats().idle


def cancelled(api: ApiServer) -> int:
    return sum(
        line.startswith('chorus_requests_total{kind="generate",outcome="cancelled"}')
        and int(float(line.split()[-1]))
        for line in api.http.get("/metrics").text.splitlines()
    )


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("path", ["/v1/generate", "/v1/completions"])
def test_a_client_that_leaves_frees_everything(
    gated: ApiServer, gate: Gate, path: str, stream: bool, reset: bool
) -> None:
    gate.close()
    texts = ["good", "a film", "is it warm"]
    native = {"task": None, "inputs": texts, "max_new_tokens": 8}
    theirs = {"model": "base", "prompt": texts, "max_tokens": 8}
    client = send(gated, path, {**(native if path == "/v1/generate" else theirs), "stream": stream})
    assert gate.waiting.wait(300)
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    eventually(lambda: cancelled(gated) >= 3)
    gate.open.set()
    assert gated.engine.wait_idle(300)
    assert gated.engine.stats().idle


def test_the_control_keeps_its_answer(gated: ApiServer, gate: Gate) -> None:
    gate.close()
    client = send(gated, "/v1/generate", {"task": None, "input": "good", "max_new_tokens": 8})
    assert gate.waiting.wait(300)
    gate.open.set()
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    client.close()
    assert cancelled(gated) == 0


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/ensemble"])
def test_the_other_inference_routes_notice_too(gated: ApiServer, gate: Gate, path: str) -> None:
    gated.push("t", labels=["no", "yes"])
    body = {"task": "t", "input": "x"} if path.endswith("classify") else {"tasks": ["t"], "input": "x"}
    assert gated.post(path, body).status_code == 200
    gate.close()
    client = send(gated, path, body)
    assert gate.waiting.wait(300)
    client.close()
    text = 'chorus_requests_total{kind="score",outcome="cancelled"}'
    eventually(lambda: text in gated.http.get("/metrics").text)


def test_a_held_version_outlives_its_deletion(gated: ApiServer, gate: Gate) -> None:
    gated.push("held", seed=1)
    gated.push("kept", seed=1, rows=4)
    gate.close()
    blocker = send(gated, "/v1/generate", {"task": None, "input": "good", "max_new_tokens": 8})
    assert gate.waiting.wait(300)
    client = send(gated, "/v1/generate", {"task": "held", "input": "good", "max_new_tokens": 8})
    eventually(lambda: gated.engine.stats().permits == 2)
    assert gated.http.delete("/v1/tasks/held").status_code == 204
    assert gated.store.collect(grace_seconds=0).held == 1
    gate.open.set()
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    blocker.recv(65536)
    client.close()
    blocker.close()
    assert gated.http.get("/v1/tasks/held").status_code == 404
    eventually(lambda: gated.store.collect(grace_seconds=0).blobs == 1)


def test_a_deadline_is_a_504(gated: ApiServer, gate: Gate) -> None:
    gate.close()
    body = {"task": None, "input": "good", "max_new_tokens": 8, "deadline_seconds": 0.05}
    answer = gated.post("/v1/generate", body)
    assert answer.status_code == 504
    assert error_of(answer)["code"] == "deadline_exceeded"


def test_a_full_queue_is_a_503_with_retry_after(tmp_path: Path, vocabulary: Vocabulary, gate: Gate) -> None:
    body = {"task": None, "input": "good", "max_new_tokens": 8}
    with ApiServer(tmp_path, vocabulary, on_dispatch=gate, config={"max_queued_requests": 1}) as api:
        gate.close()
        running = send(api, "/v1/generate", body)
        assert gate.waiting.wait(300)
        queued = send(api, "/v1/generate", body)
        eventually(lambda: api.engine.stats().permits == 2)
        refused = api.post("/v1/generate", body)
        assert (refused.status_code, error_of(refused)["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        gate.open.set()
        for client in (running, queued):
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            client.close()
        assert api.post("/v1/generate", body).status_code == 200


class GatedVocabulary(Vocabulary):
    """Holds the thread that tokenises until the gate is opened."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary._processor, vocabulary._extra_ids)
        self.begun, self.open = threading.Event(), threading.Event()
        self.texts = 0

    def encode_start(
        self, text: bytes, most: int, *, allow_sentinels: bool = False
    ) -> tuple[list[int], bool]:
        self.texts += 1
        self.begun.set()
        assert self.open.wait(300)
        return super().encode_start(text, most, allow_sentinels=allow_sentinels)


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "control"])
def test_texts_of_a_client_that_left_are_not_tokenised(
    tmp_path: Path, vocabulary: Vocabulary, leaves: bool
) -> None:
    gated = GatedVocabulary(vocabulary)
    with ApiServer(tmp_path, gated) as api:
        client = send(api, "/v1/generate", {"task": None, "inputs": ["good " * 100] * 50, "truncate": True})
        assert gated.begun.wait(300)
        if leaves:
            client.close()
            eventually(lambda: 'status="499"' in api.http.get("/metrics").text)
        gated.open.set()
        if not leaves:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            client.close()
        eventually(lambda: not api.services.text._pending)
    assert gated.texts == (1 if leaves else 50)


def test_a_dead_engine_is_told_at_once(tmp_path: Path, vocabulary: Vocabulary) -> None:
    deaths: list[EngineDeadError] = []
    told = threading.Event()

    def broken(plan: StepPlan) -> None:
        raise RuntimeError("the device fell off")

    with ApiServer(tmp_path, vocabulary, on_dispatch=broken) as api:

        def on_death(error: EngineDeadError) -> None:
            api.services.lifecycle.dead()
            deaths.append(error)
            told.set()

        api.engine.on_death = on_death
        answer = api.post("/v1/generate", {"task": None, "input": "good"})
        assert (answer.status_code, error_of(answer)["code"]) == (503, "engine_dead")
        assert told.wait(300) and len(deaths) == 1
        assert api.http.get("/readyz").status_code == 503
        assert api.http.get("/healthz").status_code == 503
        again = api.post("/v1/classify", {"task": None, "input": "x", "labels": ["a", "b"]})
        assert (again.status_code, error_of(again)["code"]) == (503, "engine_dead")


def test_before_readiness_inference_is_refused_and_progress_shown(
    tmp_path: Path, vocabulary: Vocabulary
) -> None:
    with ApiServer(tmp_path, vocabulary) as api:
        serving, api.services.serving = api.services.serving, None
        api.services.lifecycle.compiling(3, 24)
        answer = api.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "compiling", "done": 3, "total": 24})
        for path, body in (
            ("/v1/generate", {"task": None, "input": "x"}),
            ("/v1/classify", {"task": "t", "input": "x"}),
        ):
            refused = api.post(path, body)
            assert (refused.status_code, error_of(refused)["code"]) == (503, "not_ready")
            assert refused.headers["retry-after"] == "5"
        assert api.http.get("/v1/model").status_code == 503
        assert api.http.get("/v1/tasks").status_code == 200
        api.services.serving = serving
        api.services.lifecycle.ready()
        assert api.http.get("/readyz").json() == {"status": "ready"}
