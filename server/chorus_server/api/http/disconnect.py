"""Racing the work against the caller's leaving.

FastAPI does not tell a plain handler that its client left, so inference routes listen for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from chorus_server.errors import CancelledError

T = TypeVar("T")


async def until_disconnect(receive: Receive) -> None:
    """Return when the client has left. The body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def race(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The work's result. If the client leaves first, the work is cancelled.

    Either way the work has ended when this returns.

    Raises:
        CancelledError: the client left.
    """
    job = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(until_disconnect(receive))
    try:
        await asyncio.wait({job, watch}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise CancelledError("The client left before the answer was ready.")
    finally:
        await settle(job, watch)


async def settle(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait until it has ended, so that nothing is left behind."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
