from __future__ import annotations

import socket

import pytest

from server.errors import InvalidInputError
from server.process import listen, url_of


def test_answers_are_not_held_back_by_nagle() -> None:
    """The control is what `socket.create_server` makes: asyncio leaves Nagle's algorithm on there."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert client
    with socket.create_server(("127.0.0.1", 0)) as control:
        assert control.proto != socket.IPPROTO_TCP


def test_a_taken_port_or_a_strange_host_is_named() -> None:
    with listen("127.0.0.1", 0) as listener:
        with pytest.raises(InvalidInputError, match="Address already in use") as caught:
            listen("127.0.0.1", listener.getsockname()[1])
        assert caught.value.field == "http_port"
        assert url_of(listener).startswith("http://127.0.0.1:")
    for name in ("256.256.256.256", "a..b", "x" * 70):
        with pytest.raises(InvalidInputError, match="Cannot listen") as caught:
            listen(name, 0)
        assert caught.value.field == "http_host"
