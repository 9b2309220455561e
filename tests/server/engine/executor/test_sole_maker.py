"""One process makes a file at a time; one that is killed leaves nothing that others wait for."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chorus_server.engine.executor.sole_maker import BusyError, sole_maker
from tests.places import ROOT
from tether import tethered

_HOLDER = """
import sys
from pathlib import Path
from chorus_server.engine.executor.sole_maker import sole_maker
with sole_maker(Path(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        tethered([sys.executable, "-c", _HOLDER, path]),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_another_process_is_waited_for_and_no_longer(tmp_path: Path, kill: bool) -> None:
    path = tmp_path / "one.program"
    with holder(path) as process:
        with pytest.raises(BusyError), sole_maker(path, 0):
            raise AssertionError("two at once")
        with sole_maker(tmp_path / "other.program", 0):
            pass  # the control: what nobody makes is free
        entered = threading.Event()

        def wait() -> None:
            with sole_maker(path, 300):
                entered.set()

        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not entered.is_set()
        if kill:
            process.send_signal(signal.SIGKILL)
        else:
            process.communicate("\n")
        assert entered.wait(300)
        waiter.join(300)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_stops_nobody() -> None:
    path = Path("/proc/self/one.program")
    with sole_maker(path, 0), sole_maker(path, 0):
        pass
