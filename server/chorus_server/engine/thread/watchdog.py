"""Watches the engine's thread from another one. It enforces deadlines while a device step runs, and declares
the engine dead if a step hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from chorus_server.engine.config import EngineConfig
from chorus_server.errors import EngineDeadError


class Watchdog:
    """A thread that wakes every `watchdog_interval_seconds`.

    Args:
        expire: settles requests whose deadline is at or before the given time.
        die: declares the engine dead.
    """

    def __init__(
        self,
        config: EngineConfig,
        clock: Callable[[], float],
        expire: Callable[[float], None],
        die: Callable[[EngineDeadError], None],
    ) -> None:
        self._timeout = config.step_timeout_seconds
        self._interval = config.watchdog_interval_seconds
        self._clock = clock
        self._expire = expire
        self._die = die
        self._since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chorus-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. May be called from the thread itself."""
        self._stop.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The engine's thread is inside the executor while the block runs."""
        self._since = self._clock()
        try:
            yield
        finally:
            self._since = None

    def check(self) -> None:
        """One round."""
        now = self._clock()
        self._expire(now)
        since = self._since
        if self._timeout is not None and since is not None and now - since > self._timeout:
            self._die(
                EngineDeadError(f"A device step has not ended in {self._timeout:g} s, so the engine stopped.")
            )

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self.check()
