"""Work on the event loop that grows with a request's items: done in turns, so that others' requests go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

TURN_SECONDS = 0.005
"""Of work without a pause."""


async def in_turns(function: Callable[..., T], *columns: Iterable[Any]) -> list[T]:
    """`list(map(function, *columns))`, with a turn of the event loop after each `TURN_SECONDS`.

    Args:
        columns: of one length.
    """
    results: list[T] = []
    until = time.perf_counter() + TURN_SECONDS
    for row in zip(*columns, strict=True):
        results.append(function(*row))
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + TURN_SECONDS
    return results
