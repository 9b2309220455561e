"""Rows are made and sent to the device while it is busy with earlier rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetched(make: Callable[[Item], Made], items: Iterable[Item], depth: int) -> Iterator[Made]:
    """`make` of each item, in order, computed by one thread up to `depth` items ahead. An error is raised
    where its item would have come. Closing the iterator ends the thread."""
    with ThreadPoolExecutor(1, "chorus-rows") as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
