from __future__ import annotations

import signal
import sys

import pytest

from server.signals import ending_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")


def test_what_nohup_turned_off_stays_off() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ending_signals() == (signal.SIGTERM, signal.SIGINT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert ending_signals() == (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
