"""How a real server ends: on each signal under fifty clients, with every kind of log, after any failure."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios
from pathlib import Path

import pytest

from tests.end_to_end.drained import REFUSED, end, patient, served_clients
from tests.end_to_end.served import TINY, Served
from tests.server.api.api_harness import eventually

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals and logs as on Linux"),
    pytest.mark.usefixtures("compiled_quickly"),
]

_SERVE = "from chorus_server.cli import serve; serve()"
_ENDS_AT_ONCE = """
import os
from chorus_server.engine.scheduler.journal import Journal
from chorus_server.process import Process
asked = []
Process._on_signal = lambda self, sig, frame: asked.append(sig)
accepted = Journal.accepted
def last(self, *entry):
    accepted(self, *entry)
    if asked:
        os._exit(0)
Journal.accepted = last
"""


def test_a_log_that_stalls_and_then_loses_its_reader_changes_nothing(
    tmp_path: Path, tiny_model: Path, compile_cache: Path
) -> None:
    """The controls, the plain ways to log, are in tests/server/test_log.py."""
    options = {"model": tiny_model, "compile_cache_dir": compile_cache, "log_level": "debug"} | TINY
    body = {"task": None, "input": "good film", "max_new_tokens": 4}
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    with Served(tmp_path, stderr=write_end, **options) as server:
        os.close(write_end)
        server.wait_ready()
        # Lines are written many at a time: those that do not fit beside what is there wait together.
        assert int.from_bytes(fcntl.ioctl(read_end, termios.FIONREAD, bytes(4)), sys.byteorder) > 0
        assert len(server.post("/v1/generate", body)["results"]) == 1  # nobody has read a line so far
        os.close(read_end)
        assert len(server.post("/v1/generate", body)["results"]) == 1
        eventually(lambda: server.metric("chorus_log_lines_lost") > 0)
        assert server.stop(signal.SIGINT) == 0


def test_every_client_is_told(tmp_path: Path, tiny_model: Path, compile_cache: Path) -> None:
    options = {"model": tiny_model, "compile_cache_dir": compile_cache} | TINY
    with served_clients(tmp_path, **patient(), **options) as (server, clients):
        ended = end(server, clients, tmp_path, signal.SIGTERM)
    assert ended.seconds < 61
    assert ended.sound, ended
    text = "\n".join(server.lines)
    assert "SIGTERM: draining" in text
    for word in ("Traceback", "ERROR", "ASGI"):
        assert word not in text, text


def test_the_same_when_a_terminal_is_closed_and_the_logs_disk_is_full(
    tmp_path: Path, tiny_model: Path, compile_cache: Path
) -> None:
    options = {"model": tiny_model, "compile_cache_dir": compile_cache} | TINY
    with (
        Path("/dev/full").open("wb") as full,
        served_clients(tmp_path, stderr=full.fileno(), **patient(), **options) as (server, clients),
    ):
        ended = end(server, clients, tmp_path, signal.SIGHUP)
    assert ended.sound, ended


def test_a_server_that_ends_at_once_leaves_clients_untold(
    tmp_path: Path, tiny_model: Path, compile_cache: Path
) -> None:
    """The control."""
    options = {"model": tiny_model, "compile_cache_dir": compile_cache} | TINY
    command = [sys.executable, "-c", _ENDS_AT_ONCE + _SERVE]
    with served_clients(tmp_path, command=command, **options) as (server, clients):
        ended = end(server, clients, tmp_path)
    assert ended.unanswered and not ended.sound
    assert not ended.seen.told["half a body", *REFUSED]
