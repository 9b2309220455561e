"""Work on the event loop that grows with a request's items, done in turns so that other requests go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")

TURN_SECONDS = 0.005
"""Seconds of work without a pause."""


async def turns(items: Iterable[T]) -> AsyncGenerator[T, None]:
    """The items, with a pause for the event loop after each `TURN_SECONDS` of work on them."""
    until = time.perf_counter() + TURN_SECONDS
    for item in items:
        yield item
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + TURN_SECONDS


async def in_turns(function: Callable[..., T], *columns: Iterable[Any]) -> list[T]:
    """`list(map(function, *columns))` in turns.

    Args:
        columns: all of the same length.
    """
    async with aclosing(turns(zip(*columns, strict=True))) as rows:
        return [function(*row) async for row in rows]
