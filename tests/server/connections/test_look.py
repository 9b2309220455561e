"""A look at a request before its parser: nothing of it is lost or read twice, whatever is kept until when."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from chorus_server.api.http.context import ARRIVAL, Arrival
from chorus_server.api.http.raw import raw_response
from chorus_server.connections.protocol import Decide
from chorus_server.connections.registry import ConnectionPhase
from tests.server.connections.bounded_harness import CONNECTIONS, Bounds, Clock, answer, next_answer


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


NO = raw_response(Response("no", 503))
TWO = post("/one", b"abc") + post("/two", b"") + post("/three", b"x" * 50)


class Looks:
    """Wants so many bytes of each request, by turns, before the parser has it."""

    def __init__(self, wanted: list[int]) -> None:
        self.wanted = wanted
        self.seen: list[bytes] = []

    def __call__(self, data: bytes, decide: Decide) -> int:
        self.seen.append(data)
        return max(0, self.wanted[len(self.seen) % len(self.wanted)] - len(data))


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_the_parser_has_every_byte_once(connection: Any) -> None:
    looks = Looks([0])
    with Bounds(connection, look=looks) as server:

        @settings(max_examples=40, deadline=None)
        @given(
            st.lists(st.integers(0, 80), min_size=1, max_size=4), st.lists(st.integers(1, 120), max_size=6)
        )
        def check(wanted: list[int], cuts: list[int]) -> None:
            looks.wanted, looks.seen[:] = wanted, []
            with server.connect() as client:
                rest = TWO
                for cut in cuts:
                    client.sendall(rest[:cut])
                    rest = rest[cut:]
                client.sendall(rest + post("/last", b"y" * 100))  # nothing that is wanted stays away
                answers = [next_answer(client) for _ in range(4)]
            told = [json.loads(answer[2]) for answer in answers if answer is not None]
            assert [one["path"] for one in told] == ["/one", "/two", "/three", "/last"]
            assert [one["body"] for one in told] == [3, 0, 50, 100]
            assert looks.seen

        check()


def refusing(data: bytes, decide: Decide) -> bytes | int:
    """Refuses what it has whole, unless it asks for /ok."""
    if data.startswith(b"POST /ok"):
        return 0
    missing = len(post("/no", b"abc")) - len(data)
    return missing if missing > 0 else NO


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_connection_goes_on_after_a_refusal(connection: Any) -> None:
    with Bounds(connection, look=refusing) as server, server.connect() as client:
        for path, status in (("/no", 503), ("/ok", 200), ("/no", 503), ("/no", 503), ("/ok", 200)):
            client.sendall(post(path, b"abc"))
            answered = next_answer(client)
            assert answered is not None and answered[0] == status
        server.until(ConnectionPhase.IDLE)


def kept(connection: Any, after: Callable[[Bounds, Clock], None]) -> int:
    """The status that a client gets of which the server keeps half a request when this happens."""
    clock = Clock()
    with Bounds(connection, look=refusing, clock=clock) as server, server.connect() as client:
        client.sendall(post("/no", b"abc")[:-1])
        server.until(ConnectionPhase.BODY)
        after(server, clock)
        answered = next_answer(client)
        assert answered is not None
        return answered[0]


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_what_is_kept_has_the_time_of_a_body(connection: Any) -> None:
    def wait(server: Bounds, clock: Clock) -> None:
        clock.now += server.registry.limits.stall_seconds - 1
        server.sweep()
        assert server.phases() == ["BODY"]
        clock.now += 2
        server.sweep()

    assert kept(connection, wait) == 408


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_what_is_kept_at_the_end_gets_an_answer_from_its_route(connection: Any) -> None:
    """The route sees a body that does not come whole and answers at once, as every route does while the
    server drains."""

    async def no(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def end(server: Bounds, clock: Clock) -> None:
        server.routes["/no"] = no
        server.on_loop(lambda: [one.shutdown() for one in server.connections()])

    assert kept(connection, end) == 503


class Later:
    """Decides when the test says so."""

    def __init__(self) -> None:
        self.decides: list[Decide] = []

    def __call__(self, data: bytes, decide: Decide) -> None:
        self.decides.append(decide)


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_what_is_decided_later_is_not_read_further(connection: Any) -> None:
    """Not even when the client goes on sending; then everything has its answer, in order."""
    later, clock = Later(), Clock()
    arrived: list[float] = []

    async def one(scope: Any, receive: Any, send: Any) -> None:
        arrived.append(scope["state"][ARRIVAL].seconds)
        await answer(send, b'{"path": "/one"}')

    bounds = Bounds(connection, look=later, clock=clock, routes={"/one": one})
    with bounds as server, server.connect() as client:
        client.sendall(post("/one", b"abc"))
        server.until_true(lambda: len(later.decides) == 1)
        client.sendall(post("/two", b"defg"))
        clock.now += 10 * server.registry.limits.stall_seconds  # it is the server that waits
        server.sweep()
        assert server.phases() == ["BODY"] and len(later.decides) == 1
        server.on_loop(lambda: later.decides[0](Arrival(5.0, lambda: None)))
        first = next_answer(client)
        assert first is not None and json.loads(first[2])["path"] == "/one"
        assert arrived == [5.0]
        server.until_true(lambda: len(later.decides) == 2)
        server.on_loop(lambda: later.decides[1](NO))
        second = next_answer(client)
        assert second is not None and second[0] == 503
        server.until(ConnectionPhase.IDLE)


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_nothing_is_decided_for_a_connection_that_ended(connection: Any) -> None:
    later = Later()
    with Bounds(connection, look=later) as server:
        with server.connect() as client:
            client.sendall(post("/one", b"abc"))
            server.until_true(lambda: len(later.decides) == 1)
        server.on_loop(lambda: [one.end() for one in server.connections()])
        server.on_loop(lambda: later.decides[0](Arrival(5.0, lambda: None)))
        server.until()
        assert server.read == 0
