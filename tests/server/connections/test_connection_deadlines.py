"""How long a connection may take: real sockets, and a clock that passes when the test says so."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from chorus_server.api.http.context import open_context
from chorus_server.connections.registry import ConnectionPhase
from tests.server.connections.bounded_harness import (
    CONNECTIONS,
    Answer,
    Bounds,
    Clock,
    answer,
    answers_of,
    next_answer,
)

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PIECE = b"a" * (16 << 10)


class Timed(Bounds):
    """A server whose clock the test moves, and routes that wait until the test lets them go on."""

    def __init__(self, connection: Any, **given: Any) -> None:
        self.clock = Clock()
        routes = {"/late": self._late, "/early": self._early, "/much": self._much}
        super().__init__(connection, clock=self.clock, routes=routes, **given)
        self.go = asyncio.Event()

    async def _late(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads its body, and then answers, when the test says so."""
        self.request_id = open_context(scope).request_id
        await self.go.wait()
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(scope["path"])
                return
            size, more = size + len(message["body"]), message["more_body"]
        await answer(send, json.dumps({"body": size}).encode())

    async def _early(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers before it has the body."""
        await answer(send, b"{}", 413)

    async def _much(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends more than the system buffers."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1024):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.left.append(scope["path"])

    def passes(self, seconds: float) -> None:
        """Time passes, and the timer looks."""
        self.clock.now += seconds
        self.sweep()

    def lets_go(self) -> None:
        """The waiting route goes on."""
        self.on_loop(self.go.set)

    def until_one(self, condition: Callable[[Any], Any]) -> None:
        """Wait until this is true of a connection."""
        self.until_true(
            lambda: self.on_loop(lambda: any(one.flow and condition(one) for one in self.connections()))
        )


@pytest.fixture(params=CONNECTIONS, ids=lambda one: one.__name__)
def timed(request: pytest.FixtureRequest) -> Iterator[Timed]:
    with Timed(request.param) as server:
        yield server


def only(answers: list[Answer]) -> tuple[int, str]:
    """Status and code of the one answer."""
    ((status, headers, body),) = answers
    error = json.loads(body)["error"]
    assert headers["x-request-id"] == error["request_id"] and headers["connection"] == "close"
    return status, error["code"]


def test_a_connection_that_says_nothing_is_closed_without_a_word(timed: Timed) -> None:
    with timed.connect() as client:
        timed.until(ConnectionPhase.HEAD)
        timed.passes(9.9)
        assert timed.phases() == ["HEAD"]
        timed.passes(0.2)
        assert answers_of(client) == []
    timed.until()


def test_a_head_that_drips_is_answered_with_408(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(b"G")
        timed.until(ConnectionPhase.HEAD)
        for byte in b"ET / H":
            timed.passes(1.6)
            client.sendall(bytes([byte]))
        assert timed.phases() == ["HEAD"]
        timed.passes(0.5)
        assert only(answers_of(client)) == (408, "request_timeout")


def test_the_second_head_has_its_own_ten_seconds(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(GET)
        assert next_answer(client)[0] == 200  # type: ignore[index]
        timed.until(ConnectionPhase.IDLE)
        timed.passes(70)
        client.sendall(b"GET / HT")
        timed.until(ConnectionPhase.HEAD)
        timed.passes(9)
        assert timed.phases() == ["HEAD"]
        timed.passes(2)
        assert only(answers_of(client)) == (408, "request_timeout")


def test_an_idle_connection_is_closed_after_75_seconds_without_a_request(timed: Timed) -> None:
    with timed.connect() as client:
        for _ in range(3):
            client.sendall(GET)
            assert next_answer(client)[0] == 200  # type: ignore[index]
            timed.until(ConnectionPhase.IDLE)
            timed.passes(74)
        assert timed.phases() == ["IDLE"]
        timed.passes(2)
        assert answers_of(client) == []


def test_a_body_that_stalls_is_answered_with_408_and_the_route_sees_its_caller_leave(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(HEAD + b"Content-Length: 100\r\n\r\nabc")
        timed.until(ConnectionPhase.BODY)
        timed.passes(29)
        assert timed.phases() == ["BODY"] and not timed.left
        timed.passes(2)
        assert only(answers_of(client)) == (408, "request_timeout")
    timed.until()
    assert timed.left == ["/x"]


@pytest.mark.parametrize("framing", [b"Content-Length: 10000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_drips_ends_too_and_a_slow_one_that_goes_on_does_not(
    timed: Timed, framing: bytes
) -> None:
    chunked = b"chunked" in framing
    with timed.connect() as slow, timed.connect() as drip:
        for client in (slow, drip):
            client.sendall(HEAD + framing + b"\r\n\r\n")
        timed.until(ConnectionPhase.BODY, ConnectionPhase.BODY)
        for _ in range(4):
            timed.passes(29)
            before = timed.read
            slow.sendall(b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
            if len(timed.phases()) == 2:
                drip.sendall(b"1\r\na\r\n" if chunked else b"a")
            timed.until_true(lambda before=before: timed.read >= before + len(PIECE))
        assert only(answers_of(drip)) == (408, "request_timeout")
        assert timed.phases() == ["BODY"]


def test_a_body_that_the_server_does_not_read_is_not_the_clients_fault(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(b"POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (12 * len(PIECE)))
        client.sendall(8 * PIECE)
        timed.until_one(lambda one: one.flow.read_paused)
        timed.passes(1000)
        assert timed.phases() == ["BODY"]
        timed.passes(29)  # the server goes on after these: the client has 30 seconds from then
        timed.lets_go()
        timed.until_one(lambda one: not one.flow.read_paused)
        timed.passes(29)
        assert timed.phases() == ["BODY"]
        client.sendall(4 * PIECE)
        assert next_answer(client)[0] == 200  # type: ignore[index]


def test_a_client_that_waits_to_be_asked_for_its_body_has_time_from_then(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(b"POST /late HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        timed.until(ConnectionPhase.BODY)
        timed.passes(100)
        timed.passes(29)
        assert timed.phases() == ["BODY"]
        timed.lets_go()
        assert next_answer(client)[0] == 100  # type: ignore[index]
        timed.passes(29)
        assert timed.phases() == ["BODY"]
        timed.passes(2)
        ((status, headers, _),) = answers_of(client)
        assert status == 408 and headers["x-request-id"] == timed.request_id  # which the access log has


def test_a_body_that_stalls_behind_its_answer_ends_without_a_second_answer(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        assert next_answer(client)[0] == 413  # type: ignore[index]
        client.sendall(b"a")
        timed.until(ConnectionPhase.BODY)
        timed.passes(31)
        assert answers_of(client) == []


def test_an_answer_takes_as_long_as_it_takes(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        timed.until(ConnectionPhase.ANSWER)
        for _ in range(100):
            timed.passes(31)
        assert timed.phases() == ["ANSWER"]
        timed.lets_go()
        assert next_answer(client)[0] == 200  # type: ignore[index]


def test_a_client_that_does_not_read_its_answer_is_left(timed: Timed) -> None:
    with timed.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.sendall(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")
        timed.until_one(lambda one: one.flow.write_paused)
        timed.passes(29)
        taken = 0
        for _ in range(4):  # slow, but it reads
            while taken < 1 << 20:
                taken += len(client.recv(1 << 16))
            taken = 0
            timed.until_one(lambda one: one.flow.write_paused)
            timed.passes(29)
            assert timed.phases() == ["ANSWER"]
        timed.passes(31)
        timed.passes(31)
        timed.until()
    assert timed.left == ["/much"]


def test_who_is_refused_and_stays_is_closed_in_two_seconds(timed: Timed) -> None:
    with timed.connect() as client:
        client.sendall(b"nonsense\r\n\r\n")
        timed.until(ConnectionPhase.REFUSED)
        for _ in range(10):
            client.sendall(PIECE)  # thrown away
        assert timed.phases() == ["REFUSED"]
        timed.passes(2.1)
        timed.until()


def test_many_that_are_over_at_once_do_not_hold_the_loop(timed: Timed) -> None:
    clients = [timed.connect() for _ in range(300)]
    timed.until(*[ConnectionPhase.HEAD] * 300)

    def sweep() -> bool:
        """Before the server's own timer looks, which it does each second."""
        timed.clock.now += 11
        return timed.registry.sweep()

    assert timed.on_loop(sweep)  # and there are more
    assert not timed.on_loop(timed.registry.sweep)
    timed.until()
    for client in clients:
        client.close()


def test_real_seconds_end_a_silent_connection() -> None:
    for connection in CONNECTIONS:
        with Bounds(connection, clock=time.monotonic, head_seconds=0.05) as server:
            began = time.monotonic()
            with server.connect() as client:
                assert client.recv(1) == b""
                assert time.monotonic() - began >= 0.05


def test_the_control_without_limits_waits_for_ever() -> None:
    """uvicorn's own protocol: silence, half a head and half a body are all still there after a day."""
    clock = Clock()
    with Bounds(H11Protocol, plain=True, clock=clock) as server:
        clients = [server.connect() for _ in range(3)]
        clients[1].sendall(b"GET / HT")
        clients[2].sendall(HEAD + b"Content-Length: 100\r\n\r\nabc")
        assert server.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))[0][0] == 200
        clock.now += 86400
        server.sweep()
        assert server.on_loop(lambda: len(server.server.server_state.connections)) == 3
        for client in clients:
            client.close()
