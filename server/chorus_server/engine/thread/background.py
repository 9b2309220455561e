"""When work that serves no request gets the device: between steps, one bounded slice at a time.

Without a share, a slice runs only when nothing waits and nothing is in flight. A share is a debt that grows
with time and is paid in slices: once it is due, no new step is planned until those in flight are read and one
slice has run. Time beyond the share that was used while the device was idle counts for `MEMORY_SECONDS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from chorus_server.engine.protocols import BackgroundWork
from chorus_server.errors import EngineDeadError

logger = logging.getLogger(__name__)

MEMORY_SECONDS = 10.0


class Background:
    """Decides when background work gets its turn. Used on the engine's thread, except for `attach`.

    Args:
        share: the least share of the time that the work gets while it wants slices; with 0 it runs only when
            the engine is idle.
        clock: gives monotonic seconds.
        watching: entered while a slice runs; the watchdog's.
    """

    def __init__(
        self,
        share: float,
        clock: Callable[[], float],
        watching: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._share = share
        self._clock = clock
        self._watching = watching
        self._work: BackgroundWork | None = None
        self._credit = 0.0
        self._looked = clock()

    def attach(self, work: BackgroundWork) -> None:
        """Set the background work, in place of any earlier one."""
        self._work = work

    def wanted(self) -> bool:
        """Whether there is a slice to run."""
        return self._work is not None and self._work.wants_slice()

    def owed(self) -> bool:
        """Whether the work gets the next turn, even if requests wait."""
        if not self._share or not self.wanted():
            return False
        self._settle(0.0)
        return self._credit >= 0

    def run(self) -> None:
        """Run one slice. An exception ends the work but not the engine, unless the engine itself has died."""
        work = self._work
        if work is None:
            return
        started = self._clock()
        try:
            with self._watching():
                work.run_slice()
        except EngineDeadError:
            raise
        except Exception:
            logger.exception("background work failed and will not run again; the engine goes on")
            self._work = None
        self._settle(self._clock() - started)

    def _settle(self, used: float) -> None:
        """Add credit for the time that passed, and subtract the time of slices. Credit is capped: an hour
        without work gives no claim to the next hour."""
        now = self._clock()
        earned = self._share * (now - self._looked)
        self._looked = now
        lowest = -self._share * MEMORY_SECONDS
        self._credit = max(lowest, min(0.0, self._credit + earned - used))
