"""Blocking work on a bounded pool: a queue of its own length, and an answer of 503 beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from server.errors import OverloadedError

P = ParamSpec("P")
T = TypeVar("T")


class Offload:
    """Runs functions on a few threads, and refuses when too many wait.

    Args:
        threads: that run at once.
        waiting: calls that may be unfinished, running ones included.
        name: of what the threads do, for errors.
    """

    def __init__(self, threads: int, waiting: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"chorus-{name.replace(' ', '-')}")
        self._waiting = waiting
        self._name = name
        self._pending = 0

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result.

        Raises:
            OverloadedError: too many calls wait already.
        """
        return await asyncio.wrap_future(self._submit(partial(function, *args, **kwargs)))

    async def acquire(self, function: Callable[[], T], release: Callable[[T], None]) -> T:
        """The same for a function that takes hold of something.

        Args:
            release: gets what came too late for a caller who was cancelled.
        """
        future = self._submit(function)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(partial(_release_late, release))
            raise

    def _submit(self, function: Callable[[], T]) -> Future[T]:
        if self._pending >= self._waiting:
            raise OverloadedError(
                f"Too many calls wait for the {self._name}: try again.", retry_after_seconds=1
            )
        self._pending += 1
        future = self._pool.submit(function)
        future.add_done_callback(self._settle(asyncio.get_running_loop()))
        return future

    def _settle(self, loop: asyncio.AbstractEventLoop) -> Callable[[object], None]:
        def settle(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._finished)

        return settle

    def _finished(self) -> None:
        self._pending -= 1

    def close(self) -> None:
        """Let running calls end; drop the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _release_late(release: Callable[[T], None], future: Future[T]) -> None:
    if not future.cancelled() and future.exception() is None:
        release(future.result())
