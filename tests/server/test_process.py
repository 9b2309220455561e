from __future__ import annotations

import os
import socket
import subprocess

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.process import _CLOSE_SECONDS, _DEATH_SECONDS, listen, url_of
from tests.places import IMPORTS, python_module
from tether import tethered


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


WAYS = {
    "nothing fails": 0,
    "the load raises SystemExit": 1,
    "the load raises MemoryError": 1,
    "the load raises RuntimeError": 1,
    "the load hangs and the server fails": 1,
    "the load fails and the loop hangs": 1,
    "nobody hears that it listens": 1,
    "nobody hears that it loads": 1,
    "nobody hears that it drains": 0,
    "the drain raises": 1,
    "the drain hangs": 1,
    "closing hangs": 0,
}
"""Exit code by what fails: 0 where every request was answered."""


def test_whatever_fails_the_process_ends() -> None:
    """Within the seconds that the process gives it: the control, whose time nobody keeps, stays."""
    done = subprocess.run(
        tethered([*python_module("tests.server.process_child"), *WAYS, "the control"]),
        env={**os.environ, **IMPORTS},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    found = dict(line.split(": ") for line in done.stdout.splitlines())
    assert found == {name: str(code) for name, code in WAYS.items()} | {"the control": "alive"}, done.stderr
    assert max(_DEATH_SECONDS, _CLOSE_SECONDS) < 5
