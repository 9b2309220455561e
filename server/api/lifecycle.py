"""Where the process is in its life: loading, compiling, ready, draining, or its engine is dead."""

from __future__ import annotations

import gc
from typing import Any, Literal

from server.errors import ChorusError, EngineDeadError, NotReadyError

Phase = Literal["loading", "compiling", "ready", "draining", "dead"]


class Lifecycle:
    """The phase, with the progress of compiling.

    Written by the wiring, read by `/readyz` and every inference route. Assignments of one attribute are
    atomic, so the loading thread may write while the event loop reads.
    """

    def __init__(self) -> None:
        self.phase: Phase = "loading"
        self._progress = (0, 0)

    def compiling(self, done: int, total: int) -> None:
        """`done` of `total` programs are compiled."""
        self._progress = (done, total)
        self.phase = "compiling"

    def ready(self) -> None:
        """Every program is compiled and the engine runs."""
        self.phase = "ready"

    def draining(self) -> None:
        """Accepted requests finish, readiness is down."""
        if self.phase != "dead":
            self.phase = "draining"

    def dead(self) -> None:
        """The engine stopped by itself; the process is ending."""
        self.phase = "dead"

    @property
    def ending(self) -> bool:
        """Whether the process is on its way out: what only waits must not hold it up."""
        return self.phase in ("draining", "dead")

    def check(self) -> None:
        """Raise unless requests are taken. While draining, the engine itself refuses once it begins to."""
        if self.phase not in ("ready", "draining"):
            raise self.not_ready()

    def not_ready(self) -> ChorusError:
        """Why requests are not taken."""
        if self.phase == "dead":
            return EngineDeadError("The engine stopped and the process is ending: try another replica.")
        if self.phase == "draining":
            return NotReadyError("The server is shutting down: try another replica.", retry_after_seconds=1)
        done, total = self._progress
        progress = f" ({done} of {total} programs compiled)" if total else ""
        return NotReadyError(
            f"The server is starting{progress}: wait until /readyz answers 200.", retry_after_seconds=5
        )

    def report(self) -> dict[str, Any]:
        """The answer of `/readyz`."""
        if self.phase == "compiling":
            done, total = self._progress
            return {"status": "compiling", "done": done, "total": total}
        return {"status": self.phase}


def spare_collections() -> None:
    """Leave what is alive now out of every later garbage collection. It stays until the end, and going
    through it, some 300,000 objects, would stop every thread for a fifth of a second now and then."""
    gc.collect()
    gc.freeze()
