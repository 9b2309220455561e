from __future__ import annotations

import signal
import sys

import pytest

from chorus_server.signals import ending_signals
from chorus_server.worker_cli import signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")


def test_what_nohup_turned_off_stays_off() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ending_signals() == (signal.SIGTERM, signal.SIGINT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert ending_signals() == (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_worker_keeps_the_first_signal_and_ends_at_the_second() -> None:
    before = {number: signal.getsignal(number) for number in ending_signals()}
    ends: list[int] = []
    try:
        wait = signals(ends.append)
        signal.raise_signal(signal.SIGHUP)
        wait()
        assert not ends
        signal.raise_signal(signal.SIGTERM)
        assert ends == [128 + signal.SIGTERM]
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
