"""Answers that are streams of server-sent events (WHATWG HTML, section 9.2). They stop if the caller leaves
or the server ends.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from chorus_server.api.http.context import request_id_of
from chorus_server.api.http.disconnect import settle, until_disconnect
from chorus_server.api.http.errors import error_body
from chorus_server.api.services import services_of
from chorus_server.errors import ChorusError, ShuttingDownError

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment that tells proxies and clients that the connection is alive."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(name: str | None, data: Mapping[str, Any], id: int | None = None) -> bytes:
    """One event, which may have no name. JSON text has no line breaks, so one `data` line is enough."""
    head = b"" if id is None else b"id: " + str(id).encode() + b"\n"
    named = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + named + b"data: " + to_json(data, inf_nan_mode="null") + b"\n\n"


class EventResponse(Response, ABC):
    """Sends events as they come. If the caller leaves or the server ends, `send_events` is cancelled and
    awaited. When the server ends, the last event is an `error`."""

    def __init__(self) -> None:
        super().__init__(status_code=200)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        turn = asyncio.Lock()

        async def write(written: bytes) -> None:
            async with turn:
                await send({"type": "http.response.body", "body": written, "more_body": True})

        emit, request = Emit(write), Request(scope)
        job = asyncio.ensure_future(self.send_events(emit))
        watch = asyncio.ensure_future(until_disconnect(receive))
        try:
            with services_of(request).lifecycle.under_way():
                await asyncio.wait({job, watch}, return_when=asyncio.FIRST_COMPLETED)
        except ShuttingDownError as error:
            await settle(job)
            await self.send_error(error, request_id_of(request), emit)
        else:
            if not job.done():
                return
            job.result()
        finally:
            await settle(job, watch)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def send_error(self, error: ChorusError, request_id: str, emit: Emit) -> None:
        """Send the last event of a stream that the server's end cuts short."""
        await emit("error", {"error": error_body(error, request_id)})

    @abstractmethod
    async def send_events(self, emit: Emit) -> None:
        """Send every event. The stream ends when this returns."""


class Emit:
    """Writes to one stream, one event at a time, and waits while the caller reads slowly.

    Attributes:
        write: sends bytes as they are.
    """

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self.write = write

    async def __call__(self, name: str | None, data: Mapping[str, Any], id: int | None = None) -> None:
        """Send one event."""
        await self.write(event(name, data, id))

    async def keep_alive(self) -> None:
        """Send a comment."""
        await self.write(KEEP_ALIVE)
