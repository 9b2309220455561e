"""Server-sent events of a streamed generation, raced against the caller's leaving."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Response
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from server.api.http.disconnect import settle, until_disconnect
from server.api.http.errors import error_body
from server.api.inference.generated import generated
from server.api.inference.submit import submitted
from server.api.inference.text import TextStream
from server.api.inference.work import Call, Work
from server.engine.handle import RequestHandle
from server.engine.requests import FailedEvent, FinishedEvent, GenerateRequest, TokensEvent
from server.errors import ChorusError

Emit = Callable[[str, dict[str, Any]], Awaitable[None]]

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


def event(name: str, data: dict[str, Any]) -> bytes:
    """One event. JSON has no line breaks of its own, so one `data` line is enough."""
    return b"event: " + name.encode() + b"\ndata: " + to_json(data, inf_nan_mode="null") + b"\n\n"


class GenerationStream(Response):
    """Sends events as they come; cancels the engine's work and frees the versions however it ends.

    Args:
        call: whose request it is.
        works: the items, in order.
        requests: the engine's request of each.
        held: closed when the stream ends.
    """

    def __init__(
        self, call: Call, works: Sequence[Work], requests: Sequence[GenerateRequest], held: AsyncExitStack
    ) -> None:
        super().__init__(status_code=200)
        self._call = call
        self._works = works
        self._requests = requests
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            job = asyncio.ensure_future(self._send_all(send))
            watch = asyncio.ensure_future(until_disconnect(receive))
            try:
                await asyncio.wait({job, watch}, return_when=asyncio.FIRST_COMPLETED)
                if job.done():
                    job.result()
            finally:
                await settle(job, watch)

    async def _send_all(self, send: Send) -> None:
        turn = asyncio.Lock()  # events are kept by the engine's handles, so a slow client grows nothing here

        async def emit(name: str, data: dict[str, Any]) -> None:
            async with turn:
                await send({"type": "http.response.body", "body": event(name, data), "more_body": True})

        with submitted(self._call.serving.engine.submit_all, self._requests) as handles:
            async with asyncio.TaskGroup() as group:
                for index, handle in enumerate(handles):
                    group.create_task(self._send_item(index, handle, emit))
        await emit("done", {"id": self._call.request_id})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_item(self, index: int, handle: RequestHandle | ChorusError, emit: Emit) -> None:
        if isinstance(handle, ChorusError):
            await self._send_error(index, handle, emit)
            return
        vocabulary, request = self._call.serving.vocabulary, self._requests[index]
        streams = [TextStream(vocabulary, request.sampling.stop) for _ in range(request.sampling.n)]
        async for step in handle:
            if isinstance(step, TokensEvent):
                text = streams[step.index].push(step.tokens)
                data = {"index": index, "choice": step.index, "text": text, "tokens": list(step.tokens)}
                await emit("token", data)
            elif isinstance(step, FailedEvent):
                await self._send_error(index, step.error, emit)
            elif isinstance(step, FinishedEvent):
                await self._send_result(index, step, streams, emit)

    async def _send_result(
        self, index: int, step: FinishedEvent, streams: Sequence[TextStream], emit: Emit
    ) -> None:
        vocabulary, request = self._call.serving.vocabulary, self._requests[index]
        if request.sampling.num_beams == 1:
            for choice, (stream, sequence) in enumerate(zip(streams, step.sequences, strict=True)):
                rest = stream.finish(sequence.tokens)
                if rest:
                    await emit("token", {"index": index, "choice": choice, "text": rest, "tokens": []})
        answer = generated(vocabulary, self._works[index], request, step)
        if isinstance(answer, ChorusError):
            await self._send_error(index, answer, emit)
        else:
            await emit("result", {"index": index, "result": answer})

    async def _send_error(self, index: int, error: ChorusError, emit: Emit) -> None:
        await emit("error", {"index": index, "error": error_body(error, self._call.request_id)})
