"""Things on their way to a thread that takes several at a time, and never keeps whoever puts one waiting."""

from __future__ import annotations

import queue
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Holds at most so many things. `put` may be interrupted by another `put`: a signal handler may call it.

    Args:
        most: what is put beyond that is not taken.
        at_once: the most that the thread gets at a time.
    """

    def __init__(self, most: int, at_once: int) -> None:
        self._most = most
        self._at_once = at_once
        self._queue: queue.SimpleQueue[T | threading.Event] = queue.SimpleQueue()

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, thing: T) -> bool:
        """Leave a thing for the thread. Whether there was room for it."""
        if self._queue.qsize() >= self._most:
            return False
        self._queue.put(thing)
        return True

    def flush(self, seconds: float) -> bool:
        """Wait until the thread is done with all that was put before. False if that takes longer."""
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(seconds)

    def take(self) -> tuple[list[T], threading.Event | None]:
        """What is there, at least one thing, or what is before the event of somebody who waits for it: set
        that when it is done. Only one thread calls this."""
        things: list[T] = []
        item = self._queue.get()
        while not isinstance(item, threading.Event):
            things.append(item)
            if len(things) == self._at_once or self._queue.empty():
                return things, None
            item = self._queue.get()
        return things, item
