"""While much is waiting, plain inference requests are refused before a parser or a route has them."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chorus_server.api.door import entrance
from chorus_server.api.http import access
from chorus_server.api.http.context import ARRIVAL, Arrival, open_context
from chorus_server.api.inference.calls import Call
from chorus_server.awake import awake
from chorus_server.connections.protocol import Bounded
from chorus_server.engine.thread.engine import Engine
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tenancy.callers import Callers
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.principal import Principal, Scope
from tests.server.api.api_harness import ApiServer, Gate, eventually, send, stop_time

KEY = "canary-infers-0123456789"
MOST = 4
BODY = {"task": None, "input": "good"}


class Crowd:
    """A server whose queue is full, and one connection to it.

    Attributes:
        parsed: requests that a parser had since the queue was full.
    """

    def __init__(self, api: ApiServer, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api, self.gate, self.parsed = api, gate, 0
        gate.close()
        keyed = {"authorization": f"Bearer {KEY}"}
        self._waiting = [self._fill(keyed)]
        assert gate.waiting.wait(300)
        self._waiting.append(self._fill(keyed))
        eventually(lambda: api.engine.crowded)
        whole = Bounded._parse

        def counted(connection: Bounded, data: bytes) -> None:
            self.parsed += 1
            whole(connection, data)

        monkeypatch.setattr(Bounded, "_parse", counted)
        self.client = socket.create_connection(("127.0.0.1", api.port), timeout=300)

    def _fill(self, headers: dict[str, str]) -> socket.socket:
        """Send as many inputs as may wait. One more would be refused and counted, at a time of its own."""
        return send(self.api, "/v1/generate", {"task": None, "inputs": ["good"] * MOST}, headers)

    def ask(self, data: bytes) -> tuple[int, dict[str, str], Any]:
        """Send so much and read an answer."""
        self.client.sendall(data)
        return self.answer()

    def answer(self) -> tuple[int, dict[str, str], Any]:
        """Status, headers and the JSON of the next answer."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.client.recv(1)
            assert byte, head
            head += byte
        line, *lines = head.decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
        body = self.client.recv(int(headers["content-length"]), socket.MSG_WAITALL)
        return int(line.split(" ")[1]), headers, json.loads(body)

    def on_loop(self, call: Callable[[], object]) -> None:
        """Make a call on the server's event loop, after what it has to do by now."""

        async def made() -> None:
            call()

        assert self.api.loop is not None
        asyncio.run_coroutine_threadsafe(made(), self.api.loop).result(300)

    def open(self) -> None:
        """Let the engine work again, until nothing waits."""
        self.gate.open.set()
        assert self.api.engine.wait_idle(300)

    def close(self) -> None:
        self.client.close()
        for client in self._waiting:
            client.close()
        self.gate.open.set()


@pytest.fixture
def crowd(tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowd]:
    gate = Gate()
    config = {"max_queued_requests": MOST, "max_queued_per_tenant": None}
    keys = KeyRing(
        {KEY: Principal("default", "infers", frozenset({Scope.INFER}))}, Principal("default", "anonymous")
    )
    with ApiServer(tmp_path, vocabulary, on_dispatch=gate, config=config, keys=keys) as server:
        stop_time(server)  # who asks stays known, however busy the machine is
        crowd = Crowd(server, gate, monkeypatch)
        yield crowd
        crowd.close()


def request(body: Any = BODY, path: str = "/v1/generate", version: str = "1.1", **headers: str) -> bytes:
    """A request as a client sends it; headers by name, with `_` for `-`."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {
        "Host": "localhost",
        "Authorization": f"Bearer {KEY}",
        "Content_Type": "application/json",
        "Content_Length": str(len(content)),
        **headers,
    }
    lines = [f"POST {path} HTTP/{version}", *(f"{k.replace('_', '-')}: {v}" for k, v in given.items() if v)]
    return "\r\n".join([*lines, "", ""]).encode() + content


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/classify", "/v1/ensemble"])
def test_a_full_queue_refuses_before_the_parser(
    crowd: Crowd, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    count = crowd.api.services.metrics.registry.get_sample_value
    before = count("chorus_requests_refused_total", {"code": "overloaded"}) or 0.0
    status, headers, body = crowd.ask(request(path=path, X_Request_Id="mine"))
    assert (status, body["error"]["code"], body["error"]["request_id"]) == (503, "overloaded", "mine")
    assert int(headers["retry-after"]) >= 1 and headers["x-request-id"] == "mine"
    assert headers["content-type"] == "application/json" and "date" in headers
    assert crowd.parsed == 0
    for _ in range(2):
        assert crowd.ask(request(path=path))[0] == 503
    eventually(lambda: count("chorus_http_request_seconds_count", {"route": path, "status": "503"}) == 3.0)
    eventually(lambda: count("chorus_requests_refused_total", {"code": "overloaded"}) == before + 3.0)


def test_the_access_log_has_a_line_for_many(
    crowd: Crowd, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a second share it. What came after it is told by the next one."""
    now = [100.0]
    monkeypatch.setattr(entrance, "_TELL_SECONDS", 3600.0)  # the test tells
    monkeypatch.setattr(access, "time", SimpleNamespace(monotonic=lambda: now[0]))
    crowd.api.access._lines = True

    def told() -> list[str]:
        """The lines after what is done each second."""
        crowd.on_loop(crowd.api.entrance._tell)
        return caplog.messages

    with caplog.at_level(logging.INFO, "chorus.access"):
        for number in range(3):
            crowd.ask(request(X_Request_Id=f"mine{number}"))
        assert told() == ["refused unread: 3 x POST /v1/generate 503 tenant=default (last id=mine2)"]
        for number in range(3, 5):
            crowd.ask(request(X_Request_Id=f"mine{number}"))
        assert len(told()) == 1
        now[0] += 1
        assert told()[1:] == ["refused unread: 2 x POST /v1/generate 503 tenant=default (last id=mine4)"]


def test_the_same_question_is_asked_once_a_moment(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks; another tenant, deadline or number of steps is another question."""
    now, asked = [100.0], []
    honest = crowd.api.engine.check

    def check(*told: Any, **more: Any) -> None:
        asked.append(told)
        honest(*told, **more)

    monkeypatch.setattr(crowd.api.engine, "check", check)
    monkeypatch.setattr(entrance, "awake", lambda: now[0])
    door = entrance.Entrance(crowd.api.services, crowd.api.access)
    bodies = [BODY, {**BODY, "deadline_seconds": 3}, {**BODY, "max_new_tokens": 3}]

    async def answers() -> list[tuple[bytes, str]]:
        found = []
        for number, body in enumerate(bodies * 2):
            answer = door.look(request(body, X_Request_Id=f"mine{number}"), lambda decision: None)
            assert isinstance(answer, bytes)
            found.append((answer, f"mine{number}"))
        return found

    for told, later in ((3, 0.001), (3, 0.1), (6, 0.0)):
        for answer, request_id in asyncio.run(answers()):
            head, _, body = answer.partition(b"\r\n\r\n")
            assert f"x-request-id: {request_id}".encode() in head
            assert f"content-length: {len(body)}".encode() in head
            assert json.loads(body)["error"]["request_id"] == request_id
        assert len(asked) == told
        now[0] += later


def test_who_asks_is_known_for_a_second_without_the_key(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looked = [100.0], []
    honest = Callers.known

    def known(callers: Callers, *told: Any) -> Principal | None:
        looked.append(told)
        return honest(callers, *told)

    monkeypatch.setattr(Callers, "known", known)
    monkeypatch.setattr(entrance, "awake", lambda: now[0])
    door = entrance.Entrance(crowd.api.services, crowd.api.access)

    async def look() -> None:
        assert isinstance(door.look(request(), lambda decision: None), bytes)

    for times, later in ((1, 0.9), (1, 0.2), (2, 0.0)):
        asyncio.run(look())
        assert len(looked) == times
        now[0] += later
    assert KEY not in repr(list(door._heads)) and KEY not in repr(list(door._heads.values()))


def test_the_loop_pauses_after_a_refusal_once(crowd: Crowd) -> None:
    door = entrance.Entrance(crowd.api.services, crowd.api.access)

    async def look() -> object:
        return door.look(request(), lambda decision: None)

    assert door.pause_seconds() == 0
    assert isinstance(asyncio.run(look()), bytes)
    assert 0 < door.pause_seconds() < 0.02
    assert door.pause_seconds() == 0


def test_the_connection_goes_on(crowd: Crowd) -> None:
    for _ in range(3):
        assert crowd.ask(request())[0] == 503
    assert crowd.parsed == 0
    crowd.open()
    assert crowd.ask(request())[0] == 200
    assert crowd.parsed == 1


def test_a_request_may_come_in_pieces(crowd: Crowd) -> None:
    """Python's clients send head and body apart."""
    whole = request()
    middle = whole.index(b"\r\n\r\n") + 4
    for place in (middle, middle + 5):
        crowd.client.sendall(whole[:place])
        crowd.api.http.get("/healthz")  # through the loop that has the first piece: one parser
        assert crowd.ask(whole[place:])[0] == 503
    assert crowd.parsed == 2


UNUSUAL = {
    "cut in its head": (request()[:30], None),
    "another route": (request(path="/v1/tasks/t/rollback"), 403),
    "a query": (request(path="/v1/generate?a=1"), 400),
    "no key": (request(Authorization=""), 401),
    "a wrong key": (request(Authorization="Bearer nobody-has-this-key"), 401),
    "a page's": (request(Origin="https://elsewhere.example"), 403),
    "another type": (request(Content_Type="text/plain"), 503),
    "no JSON": (request(b"{"), 503),
    "a wrong deadline": (request({**BODY, "deadline_seconds": "soon"}), 503),
    "a long deadline": (request({**BODY, "deadline_seconds": 1e9}), 503),
    "a deadline that no float holds": (request({**BODY, "deadline_seconds": 10**400}), 503),
    "no host": (request(Host=""), 400),
    "HTTP/1.0": (request(version="1.0"), 503),
    "the last of its connection": (request(Connection="close"), 503),
    "long": (request({**BODY, "input": "x" * 20_000}), 503),
    "two at once": (request() + request(), 503),
    "with Expect": (request(Expect="100-continue"), 503),
    "in chunks": (request(b"2\r\n{}\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked"), 503),
    "a bare line feed": (request().replace(b"\r\nHost", b"\nHost"), 400),
    "two lengths": (request(Content_length="2"), 400),
}


@pytest.mark.parametrize("data, status", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_not_plain_goes_the_usual_way(crowd: Crowd, data: bytes, status: int | None) -> None:
    if status is None:
        crowd.client.sendall(data)
        crowd.api.http.get("/healthz")
        assert crowd.parsed == 2
        return
    assert crowd.ask(data)[0] == status
    assert crowd.parsed >= 1


def test_a_deadline_counts(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine is asked first of each request, which it then lets in."""
    crowd.open()
    asked: list[float | None] = []
    monkeypatch.setattr(Engine, "crowded", True)
    monkeypatch.setattr(crowd.api.engine, "check", lambda tenant, weight, left, **_: asked.append(left))
    default = crowd.api.services.settings.default_deadline_seconds
    for body, deadline in (
        (BODY, default),
        ({**BODY, "deadline_seconds": 200}, 200),
        ({**BODY, "deadline_seconds": 250.5}, 250.5),
    ):
        asked.clear()
        assert crowd.ask(request(body))[0] == 200
        assert asked[0] == deadline


def test_while_draining_it_is_the_drain_that_refuses(crowd: Crowd) -> None:
    crowd.api.services.lifecycle.close()
    status, _, body = crowd.ask(request())
    assert (status, body["error"]["code"], crowd.parsed) == (503, "shutting_down", 1)


def test_with_room_nobody_looks(crowd: Crowd) -> None:
    """The control: the same bytes reach the parser."""
    crowd.open()
    assert crowd.ask(request())[0] == 200
    assert crowd.parsed == 1


def test_many_at_once_go_in_one_a_turn_tenants_in_turn(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was let in counts before the engine has it, and one tenant's many do not hold up another's."""
    crowd.open()
    monkeypatch.setattr(Engine, "crowded", True)
    door = entrance.Entrance(crowd.api.services, crowd.api.access)
    order: list[int] = []
    counted: list[int] = []
    turns: list[int] = []
    let_in: list[bytes | Arrival] = []
    monkeypatch.setattr(entrance, "awake", lambda: 100.0)

    def check(tenant: str, weight: float, left: float | None, *, coming: int = 0, steps: int = 1) -> None:
        counted.append(coming)

    monkeypatch.setattr(crowd.api.engine, "check", check)
    tenants = ["busy"] * 5 + ["quiet"] * 2

    async def turns_of_the_loop() -> None:
        for number, tenant in enumerate(tenants):
            principal = Principal(tenant, "infers", frozenset({Scope.INFER}))
            monkeypatch.setattr(Callers, "known", lambda *_, principal=principal: principal)
            seen = door.look(
                request(User_Agent=tenant),
                lambda decision, n=number: (order.append(n), let_in.append(decision)),
            )
            assert seen is None
        for _ in tenants:
            before = len(order)
            await asyncio.sleep(0)
            turns.append(len(order) - before)

    asyncio.run(turns_of_the_loop())
    assert counted[: len(tenants)] == list(range(len(tenants)))
    assert counted[len(tenants) :] == list(range(len(tenants))), "the engine has none of those let in before"
    assert door._on_their_way(100.0) == len(tenants)
    for arrival in let_in:
        assert isinstance(arrival, Arrival)
        arrival.settle()
    assert door._on_their_way(100.0) == 0
    assert turns == [1] * len(tenants)
    assert order == [0, 5, 1, 6, 2, 3, 4]


def test_a_deadline_runs_while_a_request_waits_to_be_let_in(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd.open()
    asked: list[float] = []
    monkeypatch.setattr(Engine, "crowded", True)
    monkeypatch.setattr(crowd.api.engine, "check", lambda tenant, weight, left, **_: asked.append(left))
    moments = itertools.count(awake(), 100.0)
    monkeypatch.setattr(entrance, "awake", lambda: next(moments))
    assert crowd.ask(request({**BODY, "deadline_seconds": 250.0}))[0] == 200
    assert asked[0] == 250.0
    assert asked[1] == 150.0, "at its turn, a hundred seconds later"
    arrival = Arrival(5.0, lambda: None)
    context = open_context({"type": "http", "headers": [], "state": {ARRIVAL: arrival}})
    assert context.started == 5.0, "for its route too"


def test_the_wait_for_its_turn_counts_against_a_deadline(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns of a second each: whoever is behind three others has three seconds less."""
    crowd.open()
    now, left = [100.0], []
    monkeypatch.setattr(Engine, "crowded", True)
    monkeypatch.setattr(entrance, "awake", lambda: now[0])
    monkeypatch.setattr(crowd.api.engine, "check", lambda tenant, weight, seconds, **_: left.append(seconds))
    door = entrance.Entrance(crowd.api.services, crowd.api.access)

    async def four_wait() -> list[float]:
        for _ in range(2):
            left.clear()
            for _ in range(4):
                door.look(request({**BODY, "deadline_seconds": 50}), lambda decision: None)
            first = left[:]
            for _ in range(4):
                now[0] += 1.0
                await asyncio.sleep(0)
        return first

    monkeypatch.setattr(entrance, "_WEIGHT", 1.0)
    assert asyncio.run(four_wait()) == [50.0, 49.0, 48.0, 47.0]


@pytest.mark.parametrize(
    ("path", "body", "steps"),
    [
        ("/v1/generate", {**BODY, "max_new_tokens": 7}, 8),
        ("/v1/generate", BODY, 1),
        ("/v1/generate", {**BODY, "max_new_tokens": "many"}, 1),
        ("/v1/generate", {**BODY, "max_new_tokens": 10**400}, 1),
        ("/v1/classify", {**BODY, "max_new_tokens": 7}, 1),
    ],
)
def test_the_steps_that_it_asks_for_count(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], steps: int
) -> None:
    crowd.open()
    asked: list[int] = []
    monkeypatch.setattr(Engine, "crowded", True)
    monkeypatch.setattr(crowd.api.engine, "check", lambda *_, coming=0, steps: asked.append(steps))
    door = entrance.Entrance(crowd.api.services, crowd.api.access)

    async def look() -> None:
        door.look(request(body, path), lambda decision: None)

    asyncio.run(look())
    assert asked[0] == steps


def test_what_the_engine_has_no_longer_counts_as_coming(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of it: answered, or refused by its route."""
    crowd.open()
    settled: list[int] = []
    monkeypatch.setattr(Engine, "crowded", True)
    monkeypatch.setattr(crowd.api.engine, "check", lambda *_, **__: None)
    door = crowd.api.entrance
    whole = Call.submit

    async def submit(call: Call, requests: Any) -> Any:
        settled.append(len(door._coming))
        answer = await whole(call, requests)
        settled.append(len(door._coming))
        return answer

    monkeypatch.setattr(Call, "submit", submit)
    assert crowd.ask(request())[0] == 200
    assert settled == [1, 0]
    assert crowd.ask(request({**BODY, "temperature": -1}))[0] == 400
    eventually(lambda: not door._coming)
