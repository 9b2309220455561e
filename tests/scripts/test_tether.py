"""What starts a server and is killed takes the server with it, through every process between."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootstrap import _digest
from tests.end_to_end.served import free_port
from tests.places import ROOT
from tether import tethered

GUARD_SECONDS = 120

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has this")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def child_of(process: int) -> int:
    """The only child."""
    (child,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(child)


@contextmanager
def watched(process: int) -> Iterator[int]:
    """A descriptor that can be read once the process is gone; kills what is left."""
    descriptor = os.pidfd_open(process)
    try:
        yield descriptor
    finally:
        if not gone(descriptor, 0):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def gone(descriptor: int, seconds: float = GUARD_SECONDS) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def demo(tmp_path: Path, port: int) -> subprocess.Popen[bytes]:
    """`scripts/demo.py`, its environment the one that runs the tests: nothing is installed."""
    home = tmp_path / "venv"
    (home / "bin").mkdir(parents=True)
    (home / ".chorus-server").write_text(_digest("server"))
    python = home / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    own = {"CHORUS_VENV": home, "CHORUS_DEMO_DIR": tmp_path / "demo", "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
    command = [sys.executable, ROOT / "scripts" / "demo.py", "--once", "--port", port]
    return subprocess.Popen(
        tethered(command), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_a_killed_demonstration_takes_its_server_with_it(tmp_path: Path) -> None:
    port, pause = free_port(), threading.Event()
    started = demo(tmp_path, port)
    try:
        while not listens(port):
            assert started.poll() is None
            pause.wait(0.05)
        between = child_of(started.pid)
        with watched(between) as script, watched(child_of(between)) as server:
            assert not gone(server, 0)
            started.kill()
            assert gone(script) and gone(server)
        assert not listens(port)
    finally:
        started.kill()
        started.wait()


_PARENT = """
import subprocess, sys
from tether import tethered
wrap = {"tied": tethered, "untied": list}[sys.argv[1]]
echo = [sys.executable, "-c", "print('begun', flush=True); print(input(), flush=True)"]
child = subprocess.Popen(wrap(echo), stdin=int(sys.argv[2]), stdout=int(sys.argv[3]))
child.wait()
"""


def outlives(kind: str) -> bool:
    """Whether a child still answers after its parent was killed."""
    (to_read, to_say), (to_hear, to_write) = os.pipe(), os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", _PARENT, kind, str(to_read), str(to_write)]
    with subprocess.Popen(command, env=environment, pass_fds=[to_read, to_write]) as parent:
        os.close(to_write)
        with os.fdopen(to_hear) as heard, os.fdopen(to_say, "w") as said:
            assert heard.readline() == "begun\n"
            parent.kill()
            parent.wait()
            said.write("still here\n")
            said.flush()  # our own copy of the reading end keeps this from failing
            os.close(to_read)
            return heard.readline() == "still here\n"


def test_a_child_ends_with_its_parent_and_one_that_is_not_tied_does_not() -> None:
    assert not outlives("tied")
    assert outlives("untied")


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    command = tethered([sys.executable, "-c", "print('ran')"])
    command[command.index(str(os.getpid()))] = "1"  # as if another had started it
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert subprocess.run(tethered([sys.executable, "-c", "print('ran')"]), check=True).returncode == 0
