"""A clock that stands still while the process does.

A process can be stopped and go on later: SIGSTOP, `docker pause`, a debugger, a virtual machine that is
moved. To whoever takes the difference of two times, an hour's pause is one step that took an hour, a client
who was silent for an hour, or a rate of nothing. What the process itself does is timed with this clock
instead.

What others hold it to goes by the real time, pause or not: leases, what is remembered of the store, budgets,
and the end of the process after a signal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PAUSE_SECONDS = 5.0
"""A longer time between two readings is a pause. A process that works reads the clock every second."""


class AwakeClock:
    """Seconds that count only while somebody reads the clock now and then. May be read from any thread.

    Args:
        clock: gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._read, self._paused = clock(), 0.0

    def __call__(self) -> float:
        with self._lock:
            now = self._clock()
            passed, self._read = now - self._read, now
            if passed > PAUSE_SECONDS:
                self._paused += passed
            return now - self._paused


awake = AwakeClock()
"""This process's. The engine's watchdog, the sweep of the connections and a job's reports keep reading it."""
