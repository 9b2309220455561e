"""A connection that has ended leaves nothing to the collector of garbage."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from tests.server.connections.bounded_harness import CONNECTIONS, Bounds, next_answer


@pytest.mark.parametrize("connection", CONNECTIONS)
def test_a_closed_connection_is_freed_without_the_collector(connection: Any) -> None:
    """With its last request, its route's answer and all that these hold."""
    gc.disable()
    try:
        with Bounds(connection) as server:
            with server.connect() as client:
                client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                assert next_answer(client) is not None
                (gone,) = server.on_loop(lambda: [weakref.ref(each) for each in server.connections()])
                assert gone() is not None
            server.until_true(lambda: gone() is None)
    finally:
        gc.enable()
