"""A loop that may leave events alone for a moment gets many of them at once."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from chorus_server.connections import pausing
from chorus_server.connections.pausing import PausingSelector

PAUSE = 0.005


@pytest.fixture
def sockets() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(3)]
    yield pairs
    for pair in pairs:
        for each in pair:
            each.close()


@pytest.mark.parametrize(
    ("pause", "timeout", "slept", "found"),
    [
        (PAUSE, None, [PAUSE], 3),
        (PAUSE, 1.0, [PAUSE], 3),
        (PAUSE, 0.001, [0.001], 3),
        (PAUSE, 0, [], 1),  # the loop has something to do
        (0.0, None, [], 1),
    ],
)
def test_what_comes_in_the_pause_comes_together(
    sockets: list[tuple[socket.socket, socket.socket]],
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
    timeout: float | None,
    slept: list[float],
    found: int,
) -> None:
    """The first byte is there before the wait, the others come in the pause; without one, the first alone."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        for _, theirs in sockets[1:]:
            theirs.send(b"x")

    monkeypatch.setattr(pausing, "time", SimpleNamespace(sleep=sleep))
    with PausingSelector(lambda: pause) as selector:
        for ours, _ in sockets:
            selector.register(ours, selectors.EVENT_READ)
        sockets[0][1].send(b"x")
        assert len(selector.select(timeout)) == found
    assert pauses == slept
