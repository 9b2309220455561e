"""Submitting a request's items together, and never leaving one behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from server.engine.handle import RequestHandle
from server.engine.requests import FinishedEvent, Request, ScoredEvent
from server.errors import ChorusError

Submit = Callable[[Sequence[Request]], Awaitable[list[RequestHandle | ChorusError]]]
SubmitResult = FinishedEvent | ScoredEvent | ChorusError


@asynccontextmanager
async def submitted(
    submit: Submit, requests: Sequence[Request]
) -> AsyncIterator[list[RequestHandle | ChorusError]]:
    """Handles of all requests, submitted in one go so that they can share a batch.

    They are cancelled when the block ends early. A request that the engine refuses is its error in the list:
    failures after validation are per item.
    """
    handles = await submit(requests)
    try:
        yield handles
    finally:
        cancel(handles)


def cancel(handles: Iterable[RequestHandle | ChorusError]) -> None:
    """Give up what has no outcome yet."""
    for handle in handles:
        if isinstance(handle, RequestHandle) and handle.outcome is None:
            handle.cancel()


async def outcomes(submit: Submit, requests: Sequence[Request]) -> list[SubmitResult]:
    """What became of each request, in order."""
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
