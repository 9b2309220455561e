"""Where the process is in its life: loading, compiling, ready, draining, or its engine is dead. And which
requests are under way, so that each has its answer before the end.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from server.errors import ChorusError, EngineDeadError, NotReadyError, shutting_down

ServerPhase = Literal["loading", "compiling", "ready", "draining", "dead"]

_AGAIN_SECONDS = 0.2


class Lifecycle:
    """The phase, with the progress of compiling, and the requests under way.

    The phase is written by the wiring, read by `/readyz` and every route. Assignments of one attribute are
    atomic, so the loading thread may write while the event loop reads. Requests belong to the event loop.
    """

    def __init__(self) -> None:
        self.phase: ServerPhase = "loading"
        self._progress = (0, 0)
        self.closed = False
        self._given_up = False
        self._under_way: set[asyncio.Task[Any]] = set()

    def compiling(self, done: int, total: int) -> None:
        """`done` of `total` programs are compiled."""
        self._progress = (done, total)
        if not self.ending:
            self.phase = "compiling"

    def ready(self) -> None:
        """Every program is compiled and the engine runs."""
        if not self.ending:
            self.phase = "ready"

    def draining(self) -> None:
        """Readiness is down; requests are still taken."""
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
        """Raise unless the engine can be asked. While draining it can, for what was let in before."""
        if self.phase not in ("ready", "draining"):
            raise self.not_ready()

    def not_ready(self) -> ChorusError:
        """Why requests are not taken."""
        if self.phase == "dead":
            return EngineDeadError("The engine stopped and the process is ending: try another replica.")
        if self.phase == "draining":
            return shutting_down()
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

    # The requests under way.

    @property
    def unanswered(self) -> int:
        """How many requests are under way."""
        return len(self._under_way)

    def close(self) -> None:
        """Let nothing new in: `check_open` refuses from now on."""
        self.closed = True

    def check_open(self) -> None:
        """Raise ShuttingDownError once nothing new is let in."""
        if self.closed:
            raise shutting_down()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Around the work on one request, in the task that answers it.

        Raises:
            ShuttingDownError: `give_up` came before the work was done; the work was cancelled.
        """
        self._check_given_up()
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._given_up:
                raise
            while task.uncancel():  # it may have been cancelled more than once: see `give_up`
                pass
            raise shutting_down() from None
        finally:
            self._under_way.discard(task)

    def _check_given_up(self) -> None:
        if self._given_up:
            raise shutting_down()

    async def answered(self, seconds: float) -> int:
        """Wait until nothing is under way or `seconds` are over. How many requests are under way then."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._under_way and (left := until - loop.time()) > 0:
            await asyncio.wait(self._under_way, timeout=left)
        return self.unanswered

    async def give_up(self, seconds: float) -> None:
        """Cancel the work on whatever is under way, so that its caller is told; take at most `seconds`."""
        self._given_up = True
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._under_way and (left := until - loop.time()) > 0:
            for task in self._under_way:
                task.cancel()  # again and again: the first may only begin to wait for a thread that hangs
            await asyncio.wait(self._under_way, timeout=min(left, _AGAIN_SECONDS))


_OBJECTS = 5_000


def spare_collections() -> None:
    """Leave what is alive now out of every later garbage collection. It stays until the end, and going
    through it, some 300,000 objects, would stop every thread for a fifth of a second now and then.

    Later ones begin after more objects than Python's 700: some hundred requests under way have thousands,
    and hardly any of them in rings.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS)
