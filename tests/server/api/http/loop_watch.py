"""How long an event loop's callbacks keep it from everybody else."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Any


class LoopWatch:
    """Times every callback of the event loop of one thread, in CPU seconds of that thread.

    Attributes:
        doing: what is sent at the moment.
        worst: the longest callback by what was sent then.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self._ident = thread.ident
        self.doing = ""
        self.worst: dict[str, tuple[float, str]] = {}
        self._run: Any = None

    def __enter__(self) -> LoopWatch:
        run = self._run = asyncio.events.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            started = time.thread_time()
            run(handle)
            if threading.get_ident() == self._ident:
                self._note(time.thread_time() - started, handle)

        asyncio.events.Handle._run = timed  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.events.Handle._run = self._run  # type: ignore[method-assign]

    def _note(self, seconds: float, handle: asyncio.Handle) -> None:
        if seconds > self.worst.get(self.doing, (0.0, ""))[0]:
            self.worst[self.doing] = (seconds, repr(handle._callback))  # type: ignore[attr-defined]

    def longer_than(self, seconds: float) -> dict[str, str]:
        """What kept the loop for longer."""
        return {
            doing: f"{spent * 1000:.0f} ms in {callback}"
            for doing, (spent, callback) in self.worst.items()
            if spent > seconds
        }
