"""Server-sent events of a streamed generation, stopped if the caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from chorus_server.api.door.sse import Emit, EventResponse
from chorus_server.api.http.errors import error_body
from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.generated import generated
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.sampling import engine_requests
from chorus_server.api.inference.submit import submitted
from chorus_server.api.inference.text import TextStream
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.requests import FailedEvent, FinishedEvent, GenerateRequest, TokensEvent
from chorus_server.errors import ChorusError


class GenerationStream(EventResponse):
    """Sends events as they come. However it ends, it cancels the engine's work and releases the versions.

    Args:
        call: the call that it answers.
        items: prepared, in order.
        requests: the engine's request for each item, for which the caller's limits have room.
        held: closed when the stream ends.
    """

    def __init__(
        self, call: Call, items: Sequence[Item], requests: Sequence[GenerateRequest], held: AsyncExitStack
    ) -> None:
        super().__init__()
        self.call = call
        self._items = items
        self._requests = requests
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)

    async def send_events(self, emit: Emit) -> None:
        """Send every item's events as they come. Handles merge unread events, so a slow caller uses no more
        memory."""
        async with (
            submitted(self.call.submit_reserved, self._requests) as handles,
            asyncio.TaskGroup() as group,
        ):
            for index, handle in enumerate(handles):
                group.create_task(self._send_item(index, handle, emit))
        await emit("done", {"id": self.call.request_id})

    async def _send_item(self, index: int, handle: RequestHandle | ChorusError, emit: Emit) -> None:
        if isinstance(handle, ChorusError):
            await self.send_failed(index, handle, emit)
            return
        vocabulary, request = self.call.serving.vocabulary, self._requests[index]
        stop, shown = request.sampling.stop, bool(self._items[index].special_tokens)
        streams = [TextStream(vocabulary, stop, shown) for _ in range(request.sampling.n)]
        async for step in handle:
            if isinstance(step, TokensEvent):
                text = streams[step.index].push(step.tokens)
                data = {"index": index, "choice": step.index, "text": text, "tokens": list(step.tokens)}
                await emit("token", data)
            elif isinstance(step, FailedEvent):
                await self.send_failed(index, step.error, emit)
            elif isinstance(step, FinishedEvent):
                await self._send_result(index, step, streams, emit)

    async def _send_result(
        self, index: int, step: FinishedEvent, streams: Sequence[TextStream], emit: Emit
    ) -> None:
        vocabulary, request = self.call.serving.vocabulary, self._requests[index]
        if request.sampling.num_beams == 1:
            for choice, (stream, sequence) in enumerate(zip(streams, step.sequences, strict=True)):
                rest = stream.finish(sequence.tokens)
                if rest:
                    await emit("token", {"index": index, "choice": choice, "text": rest, "tokens": []})
        answer = generated(vocabulary, self._items[index], request, step)
        if isinstance(answer, ChorusError):
            await self.send_failed(index, answer, emit)
        else:
            await emit("result", {"index": index, "result": answer})

    async def send_failed(self, index: int, error: ChorusError, emit: Emit) -> None:
        """Tell that one item failed."""
        await emit("error", {"index": index, "error": error_body(error, self.call.request_id)})


Stream = TypeVar("Stream", bound=GenerationStream)


async def open_stream(
    call: Call,
    prepared: AbstractAsyncContextManager[list[Item]],
    make: Callable[[Call, list[Item], list[GenerateRequest], AsyncExitStack], Stream],
) -> Stream:
    """A stream that answers these items.

    Args:
        prepared: held until the stream ends, however it ends.
    """
    async with AsyncExitStack() as stack:
        items = await stack.enter_async_context(prepared)
        requests = await engine_requests(call, items, stream=True)
        await call.reserve(requests)
        stack.callback(call.release, requests)
        return make(call, items, requests, stack.pop_all())
