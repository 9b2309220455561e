"""Servers as processes of their own, on one database; only the device of each is in memory."""

from __future__ import annotations

import atexit
import functools
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.places import IMPORTS, python_module
from tether import tethered

ENDED = "ended"
"""What a process says last."""


@contextmanager
def serving(folder: Path, vocabulary: Path, how: str = "", **settings: Any) -> Iterator[str]:
    """The URL of a process; see `replica_child`."""
    given = {"folder": str(folder), "vocabulary": str(vocabulary), "how": how, "settings": settings}
    here, there = socket.socketpair()
    with here, there, here.makefile() as told:
        socket.send_fds(_launcher(), [json.dumps(given, default=str).encode()], [there.fileno()])
        there.close()
        here.settimeout(300)
        yield told.readline().strip()
        here.shutdown(socket.SHUT_WR)
        assert told.read() == ENDED


@functools.cache
def _launcher() -> socket.socket:
    """What makes them, until this process ends."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = tethered(python_module("tests.server.api.replica_child"))
    with there:
        child = subprocess.Popen(command, env=os.environ | IMPORTS, stdin=there)

    def end() -> None:
        here.close()
        child.wait(300)

    atexit.register(end)
    return here
