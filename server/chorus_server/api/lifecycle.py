"""The phase of the process: loading, compiling, ready, draining, or the engine is dead. And the requests
under way, so that each is answered before the end.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from chorus_server.errors import ChorusError, EngineDeadError, NotReadyError, shutting_down

ServerPhase = Literal["loading", "compiling", "ready", "draining", "dead"]

_AGAIN_SECONDS = 0.2


class Lifecycle:
    """The phase, with the progress of compiling, and the requests under way.

    The wiring writes the phase; `/readyz` and every route read it. Assigning one attribute is atomic, so the
    loading thread may write while the event loop reads. The requests belong to the event loop.
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
        """The server is no longer ready, but still takes requests."""
        if self.phase != "dead":
            self.phase = "draining"

    def dead(self) -> None:
        """The engine stopped by itself, and the process is ending."""
        self.phase = "dead"

    @property
    def ending(self) -> bool:
        """Whether the process is about to end. Work that only waits must not delay that."""
        return self.phase in ("draining", "dead")

    def check(self) -> None:
        """Raise unless the engine can be asked. While draining it can, for requests that were let in
        before."""
        if self.phase not in ("ready", "draining"):
            raise self.not_ready()

    def not_ready(self) -> ChorusError:
        """The reason why no requests are taken."""
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
        """Let nothing new in: from now on `check_open` refuses."""
        self.closed = True

    def check_open(self) -> None:
        """Raise ShuttingDownError if nothing new is let in."""
        if self.closed:
            raise shutting_down()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Mark the work on one request, in the task that answers it.

        Raises:
            ShuttingDownError: `give_up` was called before the work was done, and cancelled it.
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
            while task.uncancel():  # `give_up` may have cancelled it more than once
                pass
            raise shutting_down() from None
        finally:
            self._under_way.discard(task)

    def _check_given_up(self) -> None:
        if self._given_up:
            raise shutting_down()

    async def answered(self, seconds: float) -> int:
        """Wait until nothing is under way, at most `seconds`. Returns how many requests are still under
        way."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._under_way and (left := until - loop.time()) > 0:
            await asyncio.wait(self._under_way, timeout=left)
        return self.unanswered

    async def give_up(self, seconds: float) -> None:
        """Cancel all work under way, so that its callers get an answer. Takes at most `seconds`."""
        self._given_up = True
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._under_way and (left := until - loop.time()) > 0:
            for task in self._under_way:
                task.cancel()  # repeatedly: after the first, a task may still wait for a hanging thread
            await asyncio.wait(self._under_way, timeout=min(left, _AGAIN_SECONDS))


_OBJECTS, _YOUNG_COLLECTIONS = 1_000, 5_000


def spare_collections() -> None:
    """Exclude all objects that exist now from later garbage collections. They live until the end, and
    scanning some 300,000 of them would stop every thread for a fifth of a second now and then.

    A collection of new objects starts after 1,000 of them, not more: beside a model, whose weights leave
    little else in the processor's caches, it takes up to 2 us an object, and stops every thread for as long.
    What survives one is scanned again after five million more, not after 10 collections: a full queue has
    half a million objects that only wait, and to look through them holds up every refusal for a third of a
    second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, _YOUNG_COLLECTIONS)
