"""A native stream of events as OpenAI's chunks: `data:` lines, the last of them `[DONE]`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import accumulate
from typing import Any

from chorus_server.api.door.sse import Emit, EventResponse
from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.streaming import GenerationStream
from chorus_server.api.openai.errors import openai_error_body
from chorus_server.api.openai.shapes import Shape, native_choices, usage_json
from chorus_server.engine.requests import GenerateRequest
from chorus_server.errors import ChorusError

DONE = b"data: [DONE]\n\n"


class ChunkStream(GenerationStream):
    """Sends the native stream's texts as chunks. One item that fails ends it, with an error.

    Args:
        shape: of the chunks.
        include_usage: whether a last chunk tells the usage.
    """

    def __init__(
        self,
        call: Call,
        items: Sequence[Item],
        requests: Sequence[GenerateRequest],
        held: AsyncExitStack,
        shape: Shape,
        include_usage: bool,
    ) -> None:
        super().__init__(call, items, requests, held)
        self._shape = shape
        self._include_usage = include_usage

    async def send_events(self, emit: Emit) -> None:
        chunks = ChunkWriter(emit, self._shape, self._items, self._requests, self._include_usage)
        try:
            await chunks.open()
            await super().send_events(chunks)
        except* ChorusError as group:
            error = _first(group)
            await emit(None, openai_error_body(error, self.call.request_id))
        await emit.write(DONE)

    async def send_failed(self, index: int, error: ChorusError, emit: Emit) -> None:
        raise error

    async def send_error(self, error: ChorusError, request_id: str, emit: Emit) -> None:
        await emit(None, openai_error_body(error, request_id))


class ChunkWriter(Emit):
    """Takes native events and writes chunks. See `ChunkStream` for its arguments."""

    def __init__(
        self,
        emit: Emit,
        shape: Shape,
        items: Sequence[Item],
        requests: Sequence[GenerateRequest],
        include_usage: bool,
    ) -> None:
        super().__init__(emit.write)
        self._shape = shape
        self._head = shape.head(items[0], chunk=True)
        self._first = [0, *accumulate(request.sampling.n for request in requests)]
        self._sent: dict[int, int] = defaultdict(int)
        self._include_usage = include_usage
        self._input_tokens = sum(item.tokens for item in items)
        self._output_tokens = 0

    async def open(self) -> None:
        """Begin every choice."""
        for index in range(self._first[-1]):
            opening = self._shape.opening(index)
            if opening is not None:
                await self._write_choice(opening)

    async def __call__(self, name: str | None, data: Mapping[str, Any], id: int | None = None) -> None:
        if name == "token":
            await self._piece(self._place(data["index"], data["choice"]), data["text"])
        elif name == "result":
            native = data["result"]
            self._output_tokens += native["usage"]["output_tokens"]
            for choice, said in enumerate(native_choices(native)):
                index = self._place(data["index"], choice)
                await self._piece(index, said["text"][self._sent[index] :])  # a search of beams tells none
                await self._write_choice(self._shape.ending(index, said))
        elif name == "done" and self._include_usage:
            usage = usage_json(self._input_tokens, self._output_tokens)
            await super().__call__(None, self._head | {"choices": [], "usage": usage})

    def _place(self, item: int, choice: int) -> int:
        return self._first[item] + choice

    async def _piece(self, index: int, text: str) -> None:
        if text:
            self._sent[index] += len(text)
            await self._write_choice(self._shape.piece(index, text))

    async def _write_choice(self, choice: Mapping[str, Any]) -> None:
        usage = {"usage": None} if self._include_usage else {}
        await super().__call__(None, self._head | {"choices": [choice]} | usage)


class WrittenStream(EventResponse):
    """Sends chunks that are known already."""

    def __init__(self, chunks: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self._chunks = chunks

    async def send_events(self, emit: Emit) -> None:
        for chunk in self._chunks:
            await emit(None, chunk)
        await emit.write(DONE)


def _first(group: BaseExceptionGroup[ChorusError]) -> ChorusError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
