"""Requests of a job wait where a caller's would be refused: nobody stands in front of them."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.submit import cancel
from chorus_server.engine.handle import RequestHandle
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

_Handles = list[RequestHandle | ChorusError]


@dataclass(frozen=True, slots=True)
class PatientCall(Call):
    """A call of a job, which waits for its turn.

    Attributes:
        turn: of a job's calls, which go on side by side, one submits at a time: what is refused is not asked
            for by all of them again and again.
        under_way: what the engine has of the job, the oldest first.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    under_way: deque[RequestHandle] = field(default_factory=deque)

    async def submit(self, requests: Sequence[Request]) -> _Handles:
        """Handles of all requests, in order. Requests that find the queue full, or a limit of their tenant or
        key reached, are sent again later, and fewer at a time.

        Raises:
            QuotaExceededError: a limit lets none of them through for too long.
            NotReadyError, EngineDeadError: the process is ending.
            StoreError: the store has been away for too long.
        """
        found: dict[int, RequestHandle | ChorusError] = {}
        try:
            async with self.turn:
                await self._submit_in_turn(requests, found)
        except BaseException:
            cancel(found.values())
            raise
        return [found[place] for place in range(len(requests))]

    async def _submit_in_turn(
        self, requests: Sequence[Request], found: dict[int, RequestHandle | ChorusError]
    ) -> None:
        most, sent = len(requests), list(requests)
        while waiting := [place for place in range(len(requests)) if place not in found]:
            some = waiting[:most]
            refused: ChorusError | None = None
            try:
                # Named, because a class with slots has no `super()` in its methods.
                results = await Call.submit(self, [sent[place] for place in some])
            except (QuotaExceededError, OverloadedError) as error:
                results = [error] * len(some)
            for place, result in zip(some, results, strict=True):
                if isinstance(result, QuotaExceededError | OverloadedError):
                    refused, sent[place] = result, _anew(requests[place])
                elif isinstance(result, NotReadyError | EngineDeadError):
                    raise result
                else:
                    found[place] = result
                    self._note(result)
            if refused is None:
                continue
            most = max(1, len(some) // 2)
            if len(some) == 1:
                await self._pause(refused)

    def _note(self, result: RequestHandle | ChorusError) -> None:
        if isinstance(result, RequestHandle):
            self.under_way.append(result)
        while self.under_way and self.under_way[0].outcome is not None:
            self.under_way.popleft()

    async def _pause(self, refused: ChorusError) -> None:
        """Wait until trying again may help: what the job has under way gives room once it is answered."""
        seconds = min(refused.retry_after_seconds or _PAUSE_SECONDS, LONGEST_WAIT_SECONDS)
        while self.under_way:
            oldest = self.under_way.popleft()
            if oldest.outcome is None:
                with suppress(ChorusError, TimeoutError):
                    async with asyncio.timeout(seconds):
                        await oldest.result()
                return
        if isinstance(refused, QuotaExceededError) and (refused.retry_after_seconds or 0) > seconds:
            raise refused
        await asyncio.sleep(seconds)


def _anew(request: Request) -> Request:
    """The request with an id that was never used."""
    request_id = f"{request.origin.request_id}.{secrets.token_hex(2)}"
    return replace(request, origin=replace(request.origin, request_id=request_id))
