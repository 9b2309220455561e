"""Blocking work on a bounded thread pool. Beyond its queue's length the answer is 503."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from chorus_server.errors import OverloadedError

P = ParamSpec("P")
T = TypeVar("T")


class Offload:
    """Runs functions on a few threads, and refuses if too many wait.

    Args:
        threads: how many functions run at once.
        waiting: how many calls may be unfinished, including running ones.
        name: what the threads do, for errors.
    """

    def __init__(self, threads: int, waiting: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"chorus-{name.replace(' ', '-')}")
        self._waiting = waiting
        self._name = name
        self._pending = 0

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result.

        Raises:
            OverloadedError: too many calls are waiting.
        """
        return await asyncio.wrap_future(self._submit(partial(function, *args, **kwargs)))

    async def acquire(self, function: Callable[[], T], release: Callable[[T], None]) -> T:
        """Run a function that takes hold of something.

        Args:
            release: called with the result if it comes after the caller was cancelled.
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
                f"The server is busy: too many calls wait for the {self._name}. Try again in a moment.",
                retry_after_seconds=1,
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
        """Let running calls finish; drop the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _release_late(release: Callable[[T], None], future: Future[T]) -> None:
    if not future.cancelled() and future.exception() is None:
        release(future.result())
