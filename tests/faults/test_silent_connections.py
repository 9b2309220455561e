"""More connections than descriptors, in a server process that may open 256 files. uvicorn as it comes is the
control: it stops answering, and asyncio's accept loop fills the log."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.places import IMPORTS, python_module
from tests.server.connections import small_server
from tether import tethered

FILES, SILENT = 256, 400
GET = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
HALF = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"


class Attacked:
    """A small server process, with its log in a file."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.log = folder / f"{kind}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                tethered([*python_module(small_server), kind, FILES]),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **IMPORTS},
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.began, self._cpu_began = time.monotonic(), self._cpu_seconds()
        self._clients = contextlib.ExitStack()

    def connect(self) -> socket.socket:
        return self._clients.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=300))

    def hold(self, count: int, data: bytes = b"") -> list[socket.socket]:
        """So many connections that send this and nothing more."""
        held = []
        for _ in range(count):
            held.append(self.connect())
            with contextlib.suppress(ConnectionError):  # it may have been closed for a newer one
                held[-1].sendall(data)
        return held

    def ask(self, path: bytes = b"/healthz") -> bytes:
        """The answer on a fresh connection; empty when it was closed without one."""
        client, answer = self.connect(), b""
        with client, contextlib.suppress(ConnectionError):
            client.sendall(GET % path)
            while piece := client.recv(4096):
                answer += piece
        return answer

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def cpu_seconds(self) -> float:
        """What it took since it listens: what it imports takes a slow machine seconds."""
        return self._cpu_seconds() - self._cpu_began

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()[-2000:]

    def close(self) -> None:
        self._clients.close()
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def bounded(tmp_path: Path) -> Iterator[Attacked]:
    server = Attacked("bounded", tmp_path)
    yield server
    server.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Attacked]:
    server = Attacked("plain", tmp_path)
    yield server
    server.close()


def test_silent_connections_give_way_to_health_checks(bounded: Attacked) -> None:
    bounded.hold(SILENT)
    for _ in range(20):
        assert bounded.ask().startswith(b"HTTP/1.1 200")
    assert bounded.open_files() <= FILES - 32 + 1
    assert bounded.log.read_text().count("\n") <= time.monotonic() - bounded.began + 1
    assert bounded.cpu_seconds() < 5


def test_half_sent_bodies_leave_room_for_health_checks_alone(bounded: Attacked) -> None:
    held = bounded.hold(SILENT, HALF)
    refused = bounded.ask(b"/slow")
    while not refused.startswith(b"HTTP/1.1 503"):  # some had been closed before their bytes were read
        held += bounded.hold(1, HALF)
        refused = bounded.ask(b"/slow")
    assert b'"overloaded"' in refused and b"retry-after: 1" in refused
    for _ in range(5):
        assert bounded.ask().startswith(b"HTTP/1.1 200")
    assert bounded.open_files() <= FILES - 16 + 1
    for client in held:
        client.close()
    bounded.until(lambda: bounded.ask(b"/slow").startswith(b"HTTP/1.1 200"))
    assert bounded.log.read_text().count("\n") <= time.monotonic() - bounded.began + 1


def test_a_process_without_descriptors_survives_with_a_log_line_a_second(bounded: Attacked) -> None:
    assert bounded.ask(b"/eat").startswith(b"HTTP/1.1 200")
    assert bounded.open_files() == FILES - 1  # of the request that ate them
    bounded.hold(SILENT)
    bounded.until(lambda: "not accepted: Too many open files" in bounded.log.read_text())
    bounded.process.send_signal(signal.SIGUSR1)
    bounded.until(lambda: bounded.ask(b"/slow").startswith(b"HTTP/1.1 200"))
    assert bounded.log.read_text().count("\n") <= time.monotonic() - bounded.began + 1


def test_a_process_that_may_open_too_few_files_says_so() -> None:
    ended = subprocess.run(
        [*python_module(small_server), "bounded", "100"],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, **IMPORTS},
    )
    assert ended.returncode and "it needs 128" in ended.stderr and "ulimit -n" in ended.stderr


def test_the_control_stops_answering_and_fills_its_log(plain: Attacked) -> None:
    plain.hold(SILENT)
    fresh = plain.connect()
    fresh.sendall(GET % b"/healthz")
    plain.until(lambda: plain.log.stat().st_size > 1_000_000)
    fresh.setblocking(False)
    with pytest.raises(BlockingIOError):
        fresh.recv(1)
