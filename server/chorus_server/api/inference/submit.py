"""Submit a request's items together, and never leave one behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.requests import FinishedEvent, Request, ScoredEvent
from chorus_server.errors import ChorusError

Submit = Callable[[Sequence[Request]], Awaitable[list[RequestHandle | ChorusError]]]
SubmitResult = FinishedEvent | ScoredEvent | ChorusError


@asynccontextmanager
async def submitted(
    submit: Submit, requests: Sequence[Request]
) -> AsyncIterator[list[RequestHandle | ChorusError]]:
    """Handles of all requests, submitted together so that they can share a batch.

    They are cancelled if the block ends early. If the engine refuses a request, its place in the list has the
    error: after validation, each item fails by itself.
    """
    handles = await submit(requests)
    try:
        yield handles
    finally:
        cancel(handles)


def cancel(handles: Iterable[RequestHandle | ChorusError]) -> None:
    """Cancel every request that has no outcome yet."""
    for handle in handles:
        if isinstance(handle, RequestHandle) and handle.outcome is None:
            handle.cancel()


async def outcomes(submit: Submit, requests: Sequence[Request]) -> list[SubmitResult]:
    """The outcome of each request, in order."""
    results: list[SubmitResult] = []
    async with submitted(submit, requests) as handles:
        for handle in handles:
            if isinstance(handle, ChorusError):
                results.append(handle)
                continue
            try:
                results.append(await handle.result())
            except ChorusError as error:
                results.append(error)
    return results
