"""Requests of a job wait where a caller's would be refused: nobody stands in front of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.submit import SubmitResult, outcomes
from chorus_server.engine.requests import Request
from chorus_server.errors import (
    ChorusError,
    EngineDeadError,
    NotReadyError,
    OverloadedError,
    QuotaExceededError,
)

LONGEST_WAIT_SECONDS = 120.0
"""A limit that lets nothing through for longer, such as a month's, ends the job; it can be resumed."""

_PAUSE_SECONDS = 1.0


async def patient_outcomes(
    call: Call, requests: Sequence[Request], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> list[SubmitResult]:
    """The outcome of each request, in order. Requests that find the queue full, or a limit of their tenant or
    key reached, are sent again later, and fewer at a time.

    Raises:
        QuotaExceededError: a limit lets none of them through for too long.
        NotReadyError, EngineDeadError: the process is ending.
        StoreError: the store has been away for too long.
    """
    found: dict[int, SubmitResult] = {}
    most = len(requests)
    while waiting := [place for place in range(len(requests)) if place not in found]:
        some = waiting[:most]
        try:
            results = await outcomes(call.submit, [_anew(requests[place]) for place in some])
        except (QuotaExceededError, OverloadedError) as error:
            results = [error] * len(some)
        refused: ChorusError | None = None
        for place, result in zip(some, results, strict=True):
            if isinstance(result, QuotaExceededError | OverloadedError):
                refused = result
            elif isinstance(result, NotReadyError | EngineDeadError):
                raise result
            else:
                found[place] = result
        if refused is None:
            continue
        seconds = refused.retry_after_seconds or _PAUSE_SECONDS
        if len(some) == 1 and isinstance(refused, QuotaExceededError) and seconds > LONGEST_WAIT_SECONDS:
            raise refused
        most = max(1, len(some) // 2)
        if len(some) == 1:
            await sleep(min(seconds, LONGEST_WAIT_SECONDS))
    return [found[place] for place in range(len(requests))]


def _anew(request: Request) -> Request:
    """The request with an id that was never used."""
    request_id = f"{request.origin.request_id}.{secrets.token_hex(2)}"
    return replace(request, origin=replace(request.origin, request_id=request_id))
