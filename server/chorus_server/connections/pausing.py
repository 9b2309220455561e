"""A selector that collects events, so that under load the event loop wakes up once for many."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable


class PausingSelector(selectors.DefaultSelector):
    """When the loop has nothing to do but wait, it may wait a moment beyond the first event.

    Args:
        pause_seconds: called before each wait; returns how long to leave events alone.
    """

    def __init__(self, pause_seconds: Callable[[], float]) -> None:
        super().__init__()
        self._pause_seconds = pause_seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Like any selector's `select`; `timeout` is in seconds, and None waits for ever."""
        if timeout is None or timeout > 0:
            pause = self._pause_seconds()
            if timeout is not None:
                pause = min(pause, timeout)
                timeout -= pause
            if pause > 0:
                time.sleep(pause)
        return super().select(timeout)
