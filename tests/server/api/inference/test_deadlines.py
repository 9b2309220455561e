"""A deadline counts from the request's arrival and holds before the engine: what is late is a 504.

What a request waits for is held up until its answer is there, so that no clock decides.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import httpx2
import pytest

from chorus_server.api.http.context import RequestContext
from chorus_server.api.http.offload import Offload
from chorus_server.api.inference import calls
from chorus_server.api.inference.calls import Call, prepare_all
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import score_requests
from chorus_server.errors import DeadlineExceededError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.settings import Settings
from chorus_server.tenancy.principal import Principal
from tests.server.api.api_harness import ApiServer, error_of, eventually

LATE = 0.05
LONG = "good film " * 3000  # tokenised on a text thread


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    folder = tmp_path_factory.mktemp("late")
    with pytest.MonkeyPatch.context() as patch, ApiServer(folder, vocabulary) as server:
        patch.setattr(Settings, "default_deadline_seconds", LATE)
        server.push("t", labels=["no", "yes"])
        yield server
        assert server.engine.wait_idle(300)


@contextmanager
def held_up(pool: Offload) -> Iterator[None]:
    """Every thread of a pool is taken until the block ends."""
    threads = pool._pool._max_workers
    gate, taken = threading.Event(), threading.Barrier(threads + 1)

    def hang() -> None:
        taken.wait(300)
        assert gate.wait(300)

    calls = [pool._pool.submit(hang) for _ in range(threads)]
    taken.wait(300)
    try:
        yield
    finally:
        gate.set()
        for call in calls:
            call.result(300)


def submitted(api: ApiServer) -> int:
    """Requests that the engine has taken so far."""
    return len(api.engine.journal.entries())


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "classify": ("/v1/classify", {"task": "t"}),
    "generate": ("/v1/generate", {"task": "t"}),
    "stream": ("/v1/generate", {"task": "t", "stream": True}),
    "ensemble": ("/v1/ensemble", {"tasks": ["t"]}),
    "responses": ("/v1/responses", {"model": "t"}),
}


def assert_late(api: ApiServer, answer: httpx2.Response, before: int) -> None:
    assert (answer.status_code, error_of(answer)["code"]) == (504, "deadline_exceeded")
    assert "before the engine had the request" in error_of(answer)["message"]
    assert submitted(api) == before
    eventually(lambda: api.store._leases.held() == 0)


@pytest.mark.parametrize("deadline", [{"deadline_seconds": LATE}, {}], ids=["asked", "default"])
@pytest.mark.parametrize("name", REQUESTS)
def test_waiting_for_the_store_ends_with_the_deadline(
    api: ApiServer, name: str, deadline: dict[str, float]
) -> None:
    path, body = REQUESTS[name]
    before = submitted(api)
    api.services.library._versions.forget()
    with held_up(api.services.library._readers):
        answer = api.post(path, {**body, "input": "good", **deadline})
        assert_late(api, answer, before)


@pytest.mark.parametrize("name", REQUESTS)
def test_waiting_for_a_text_thread_ends_with_the_deadline(api: ApiServer, name: str) -> None:
    path, body = REQUESTS[name]
    before = submitted(api)
    with held_up(api.services.text):
        answer = api.post(path, {**body, "input": LONG, "truncate": True})
        assert_late(api, answer, before)


def test_control_without_it_a_request_waits_for_the_thread(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def for_ever(call: Call) -> Any:
        yield

    monkeypatch.setattr(Call, "in_time", for_ever)
    answers: list[httpx2.Response] = []
    body = {"task": "t", "input": LONG, "truncate": True, "deadline_seconds": 1.0}
    waiting = threading.Thread(target=lambda: answers.append(api.post("/v1/classify", body)))
    with held_up(api.services.text):
        arrived = time.monotonic()
        waiting.start()
        eventually(lambda: api.services.text._pending == 1 and time.monotonic() > arrived + 1.1)
        assert answers == []
    waiting.join()
    assert answers[0].status_code == 504  # all the same, but only now


READING = 300.0
"""Seconds, on the clock of a call, that reading the body took."""


def send(api: ApiServer, deadline_seconds: float) -> bytes:
    """The status line of the answer to a body that comes in two halves."""
    content = json.dumps({"task": "t", "input": "good", "deadline_seconds": deadline_seconds}).encode()
    head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", api.port), timeout=300) as client:
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:20])
        client.sendall(content[20:])
        return client.recv(4096).split(b"\r\n")[0]


def after_reading() -> float:
    return time.monotonic() + READING


def test_the_clock_starts_before_the_body_is_read(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "Call", partial(Call, clock=after_reading))
    before = submitted(api)
    assert b"504" in send(api, 0.9 * READING)
    assert submitted(api) == before
    # The control: a clock that starts when the body was read.
    begun = lambda request: RequestContext("late", started=after_reading())  # noqa: E731
    monkeypatch.setattr(calls, "context_of", begun)
    assert b"200" in send(api, 0.9 * READING)


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def call_at(api: ApiServer, deadline: float | None, clock: Clock) -> Call:
    serving = api.services.serving
    assert serving is not None
    caller = Principal("default", "test")
    return Call(api.services, serving, caller, "req_test", deadline, lambda: None, {}, clock=clock)


@pytest.mark.parametrize("text", ["good", LONG], ids=["on the loop", "on a thread"])
@pytest.mark.parametrize(("deadline", "looks"), [(3.5, 4), (None, 0)], ids=["late", "control"])
def test_texts_are_tokenised_one_by_one_while_there_is_time(
    api: ApiServer, text: str, deadline: float | None, looks: int
) -> None:
    clock = Clock()
    call = call_at(api, deadline, clock)
    pairs = [(Item(None, text.encode(), "input", truncate=True), None)] * 20
    if deadline is None:
        assert len(asyncio.run(prepare_all(call, pairs))) == 20
    else:
        with pytest.raises(DeadlineExceededError):
            asyncio.run(prepare_all(call, pairs))
    assert clock.now == looks


def test_the_engine_gets_what_is_left(api: ApiServer) -> None:
    clock = Clock()
    call = call_at(api, 10.0, clock)
    items = asyncio.run(prepare_all(call, [(Item(None, b"good", "input"), None)] * 3))
    requests = asyncio.run(score_requests(call, items, ["no", "yes"], sent=True))
    assert [request.origin.deadline_seconds for request in requests] == [6, 5, 4]
    with pytest.raises(DeadlineExceededError):
        asyncio.run(score_requests(call, items * 3, ["no", "yes"], sent=True))
