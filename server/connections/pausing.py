"""A selector that lets events come together: under load the event loop then wakes up once for many."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable


class PausingSelector(selectors.DefaultSelector):
    """Where the loop has nothing to do but wait, it may wait a moment longer than for the first event.

    Args:
        pause_seconds: asked before each wait; how long to leave events alone.
    """

    def __init__(self, pause_seconds: Callable[[], float]) -> None:
        super().__init__()
        self._pause_seconds = pause_seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As a selector does; `timeout` in seconds, None waits for ever."""
        if timeout is None or timeout > 0:
            pause = self._pause_seconds()
            if timeout is not None:
                pause = min(pause, timeout)
                timeout -= pause
            if pause > 0:
                time.sleep(pause)
        return super().select(timeout)
