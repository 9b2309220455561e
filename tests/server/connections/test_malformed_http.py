"""Bytes that are no request, or that two servers could read differently, on both parsers."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from chorus_server.connections.registry import ConnectionPhase
from tests.server.connections.bounded_harness import (
    CONNECTIONS,
    Answer,
    Bounds,
    answer,
    answers_of,
    next_answer,
)

HOST = b"Host: a\r\n"
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def get(target: bytes = b"/", headers: bytes = HOST + CLOSE, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + headers + b"\r\n"


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /x HTTP/1.1\r\n" + HOST + headers + b"\r\n" + body


REFUSED: dict[str, bytes] = {
    "encoding and length": post(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n"),
    "length and encoding": post(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"aaaaaa"),
    "a list of lengths": post(b"Content-Length: 5, 6\r\n", b"aaaaaa"),
    "a length with plus": post(b"Content-Length: +5\r\n", b"aaaaa"),
    "a length with minus": post(b"Content-Length: -5\r\n", b"aaaaa"),
    "a length with an underscore": post(b"Content-Length: 1_0\r\n", b"a" * 10),
    "a length with a space": post(b"Content-Length: 1 0\r\n", b"a" * 10),
    "a length in hexadecimal": post(b"Content-Length: 0x5\r\n", b"aaaaa"),
    "an empty length": post(b"Content-Length: \r\n", b"aaaaa"),
    "a length beyond 64 bits": post(b"Content-Length: " + b"9" * 30 + b"\r\n", b"aaaaa"),
    "chunked is not last": post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "identity": post(b"Transfer-Encoding: identity\r\n"),
    "gzip": post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "chunked twice": post(CHUNKED + CHUNKED, b"0\r\n\r\n"),
    "nearly chunked": post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "chunked behind a control character": post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "chunked in 1.0": b"POST /x HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "a folded line": post(b"X: a\r\n b\r\n"),
    "a line feed alone": b"GET /x HTTP/1.1\nHost: a\n\n",
    "a line feed alone in the headers": b"GET /x HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    "a carriage return alone": b"GET /x HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a space before the colon": post(b"X : a\r\n"),
    "no name": post(b": a\r\n"),
    "no colon": post(b"abc\r\n"),
    "a space before the first header": b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n",
    "NUL in a value": post(b"X: a\0b\r\n"),
    "NUL in a name": post(b"X\0: ab\r\n"),
    "a control character": post(b"X: a\x01b\r\n"),
    "no host": get(headers=CLOSE),
    "two hosts": get(headers=HOST + HOST),
    "a target of another scheme": get(b"ftp://a/x"),
    "a star": get(b"*"),
    "a target without a slash": get(b"x"),
    "a target that is not ASCII": get(b"/\xc3\xa9"),
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": get(version=b"HTTP/9.9"),
    "HTTP/1.2": get(version=b"HTTP/1.2"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    "noise": b"\x00\xff\xfe" * 20,
    "a sentence": b"hello, is there anybody?\r\n\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "a chunk's size is no number": post(CHUNKED, b"zz\r\na\r\n0\r\n\r\n"),
    "a chunk's size with 0x": post(CHUNKED, b"0x5\r\naaaaa\r\n0\r\n\r\n"),
    "a chunk's size with minus": post(CHUNKED, b"-1\r\na\r\n0\r\n\r\n"),
    "a chunk's size beyond 64 bits": post(CHUNKED, b"f" * 30 + b"\r\na\r\n0\r\n\r\n"),
    "a chunk longer than it says": post(CHUNKED, b"1\r\nabc0\r\n\r\n"),
    "a chunk's extension without end": post(CHUNKED, b"1;" + b"y" * 100_000),
    "a trailer without a colon": post(CHUNKED, b"1\r\na\r\n0\r\nX y\r\n\r\n"),
    "a trailer that ends in a line feed": post(CHUNKED, b"1\r\na\r\n0\r\nX: y\n\n"),
    "trailers without end": post(CHUNKED, b"1\r\na\r\n0\r\nX: " + b"y" * 100_000),
}

REFUSED_OTHERWISE: dict[str, tuple[int, str, bytes]] = {
    "an expectation": (417, "expectation_failed", post(b"Expect: teapot\r\nContent-Length: 1\r\n", b"a")),
    "a long target": (414, "target_too_long", get(b"/" + b"a" * 70_000)),
    "a target without end": (414, "target_too_long", b"GET /" + b"a" * 70_000),
    "a long header": (431, "headers_too_large", post(b"X: " + b"a" * 70_000 + b"\r\n")),
    "many headers": (431, "headers_too_large", post(b"X: a\r\n" * 20_000)),
}

TAKEN: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a path": (get(), {"path": "/", "query": ""}),
    "HTTP/1.0 without a host": (get(headers=b"", version=b"HTTP/1.0"), {"path": "/"}),
    "a whole URL": (get(b"http://a/x?q=1"), {"path": "/x", "query": "q=1"}),
    "a URL without a path": (get(b"http://a?q=1"), {"path": "/", "query": "q=1"}),
    "the server itself": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", {"path": "*"}),
    "16 KiB of head": (
        get(b"/" + b"a" * 8000, HOST + CLOSE + b"X: " + b"a" * 8000 + b"\r\n"),
        {"path": "/" + "a" * 8000},
    ),
    "a value in Latin-1": (get(headers=HOST + CLOSE + b"X: \xe9\r\n"), {"path": "/"}),
    "an upgrade to HTTP/2": (
        post(CLOSE + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n", b"ab"),
        {"body": 2},
    ),
    "an upgrade of a chunked request": (
        post(CHUNKED + b"Connection: Upgrade\r\nUpgrade: x\r\n" + CLOSE, b"2\r\nab\r\n0\r\n\r\n"),
        {"body": 2},
    ),
    "an extension and a trailer": (
        post(CHUNKED + CLOSE, b"1;a=b\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\n\r\n"),
        {"body": 3},
    ),
}


@pytest.fixture(scope="module", params=CONNECTIONS, ids=lambda one: one.__name__)
def bounds(request: pytest.FixtureRequest) -> Iterator[Bounds]:
    with Bounds(request.param) as server:
        yield server


def refusal(answers: list[Answer]) -> tuple[int, str]:
    """Status and code of the one answer, after checking its shape."""
    ((status, headers, body),) = answers
    error = json.loads(body)
    assert set(error) == {"error"} and set(error["error"]) == {"code", "message", "field", "request_id"}
    assert headers["x-request-id"] == error["error"]["request_id"]
    assert headers["connection"] == "close" and headers["content-type"] == "application/json"
    assert error["error"]["message"].endswith(".")
    return status, error["error"]["code"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_answered_in_the_one_shape_and_closed(bounds: Bounds, name: str) -> None:
    assert refusal(bounds.ask(REFUSED[name])) == (400, "malformed_request")


@pytest.mark.parametrize("name", REFUSED_OTHERWISE)
def test_what_is_too_long_or_expects_too_much_has_a_code_of_its_own(bounds: Bounds, name: str) -> None:
    status, code, data = REFUSED_OTHERWISE[name]
    assert refusal(bounds.ask(data)) == (status, code)


@pytest.mark.parametrize("name", TAKEN)
def test_the_control_is_taken(bounds: Bounds, name: str) -> None:
    data, expected = TAKEN[name]
    ((status, _, body),) = bounds.ask(data)
    assert status == 200 and expected.items() <= json.loads(body).items()


def test_many_requests_on_one_connection_are_no_long_head(bounds: Bounds) -> None:
    """The bytes of one request do not count against the next one's limits."""
    with bounds.connect() as client:
        for _ in range(600):  # more than the limit of a head in all
            client.sendall(get(headers=HOST + b"X: " + b"a" * 80 + b"\r\n"))
            answered = next_answer(client)
            assert answered is not None and answered[0] == 200
        client.sendall(post(CLOSE + b"Content-Length: 1\r\n"))
        bounds.until(ConnectionPhase.BODY)
        client.sendall(b"a")
        ((status, _, body),) = answers_of(client)
        assert (status, json.loads(body)["body"]) == (200, 1)


def test_requests_in_a_row_are_answered_in_order_and_the_bad_one_ends_them(bounds: Bounds) -> None:
    row = get(b"/1", HOST) + get(b"/2", HOST) + get(b"/3", CLOSE) + get(b"/4")
    answers = bounds.ask(row)
    paths = [json.loads(body).get("path") for status, _, body in answers if status == 200]
    assert paths == ["/1", "/2"][: len(paths)] and paths
    assert [status for status, _, _ in answers[len(paths) :]] in ([], [400])


def test_an_answer_that_has_begun_is_not_broken_into() -> None:
    """A body that turns out malformed behind its answer: the connection ends, and says nothing more."""

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"{}", 413)

    for connection in CONNECTIONS:
        with Bounds(connection, routes={"/early": early}) as server, server.connect() as client:
            client.sendall(b"POST /early HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n1\r\na\r\n")
            early_answer = next_answer(client)
            assert early_answer is not None and early_answer[0] == 413
            client.sendall(b"zz\r\n")
            assert answers_of(client) == []


def test_five_hundred_in_a_row_are_a_log_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    messages = [*REFUSED.values()] * 10
    for connection in CONNECTIONS:
        caplog.clear()
        with caplog.at_level(logging.INFO), Bounds(connection) as server:
            began = time.monotonic()
            for message in messages:
                refusal(server.ask(message))
            seconds = time.monotonic() - began
            server.on_loop(lambda: server.registry.tally.write(time.monotonic() + 2))
        own = [record for record in caplog.records if record.thread == server.thread.ident]
        lines = [record for record in own if record.levelno >= logging.WARNING]
        assert 1 <= len(lines) <= seconds + 2, lines
        told = sum(int(record.getMessage().split()[2]) for record in lines)
        assert told == len(messages) > 500


def test_the_control_without_limits_is_smuggled_through_and_floods_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO), Bounds(H11Protocol, plain=True) as server:
        taken = server.ask(post(CHUNKED + CLOSE + b"Content-Length: 5\r\n", b"0\r\n\r\n"))
        assert [status for status, _, _ in taken] == [200]
        for name in ("two lengths", "TLS", "a space before the colon"):
            with server.connect() as client:
                client.sendall(REFUSED[name])
                assert b"text/plain" in client.recv(4096)
    assert sum("Invalid HTTP request" in record.getMessage() for record in caplog.records) == 3


def test_damaged_requests_are_survived(bounds: Bounds, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes changed, doubled, dropped and moved: an answer or none, and never an error in the log."""
    dice = random.Random(7)
    whole = [*REFUSED.values(), *(data for data, _ in TAKEN.values())]
    whole = [data for data in whole if len(data) < 2000]
    with caplog.at_level(logging.ERROR):
        for _ in range(400):
            data = bytearray(dice.choice(whole))
            for _ in range(dice.randint(1, 4)):
                place = dice.randrange(len(data) or 1)
                change = dice.choice((b"\r", b"\n", b" ", b":", b"\0", b"0", b"\r\n\r\n", b"GET ", b""))
                data[place : place + dice.randint(0, 3)] = change
            with bounds.connect() as client:
                client.sendall(data)
                client.shutdown(1)
                assert all(status in (100, 200, 400, 417) for status, _, _ in answers_of(client))
    assert not caplog.records
    assert bounds.ask(get())[0][0] == 200
