"""What one connection may take of the event loop at a time, counted in its thread's CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.server.connections.bounded_harness import CONNECTIONS, Bounds

CHUNKS = 100_000
BODY = b"1\r\na\r\n" * CHUNKS + b"0\r\n\r\n"
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def longest(connection: Any, called: str, data: bytes, plain: bool = False) -> float:
    """CPU seconds of the longest call of this method while a client sends the data."""
    most = 0.0
    made: Callable[..., Any] = getattr(connection, called)

    def timed(self: Any, given: Any) -> None:
        nonlocal most
        began = time.thread_time()
        made(self, given)
        most = max(most, time.thread_time() - began)

    watched = type("Watched", (connection,), {called: timed})
    with Bounds(watched, plain=plain) as server:
        assert {status for status, _, _ in server.ask(data)} == {200}
    return most


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_body_in_pieces_of_one_byte_does_not_hold_the_loop(connection: Any) -> None:
    # The least of several: a busy machine adds to some.
    assert min(longest(connection, "buffer_updated", HEAD + BODY) for _ in range(3)) < 0.05


def test_the_control_is_held_by_what_it_reads_at_once() -> None:
    assert longest(H11Protocol, "data_received", HEAD + BODY, plain=True) > 0.05
