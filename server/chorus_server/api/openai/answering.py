"""Asks the engine for the items of an OpenAI body, and answers whole or as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from fastapi import Response

from chorus_server.api.inference.answers import list_response, unexpected
from chorus_server.api.inference.calibrated import ranked
from chorus_server.api.inference.calls import Call
from chorus_server.api.inference.generated import generated
from chorus_server.api.inference.items import Item
from chorus_server.api.inference.ranking import score_requests, scores_of
from chorus_server.api.inference.sampling import engine_requests
from chorus_server.api.inference.streaming import open_stream
from chorus_server.api.inference.submit import SubmitResult, outcomes
from chorus_server.api.openai.items import asked_items, warnings_of
from chorus_server.api.openai.shapes import NativeChoice, Shape, native_choices, usage_json
from chorus_server.api.openai.streaming import ChunkStream
from chorus_server.api.openai.structured import Choosing
from chorus_server.api.schemas.openai.messages import Conversation
from chorus_server.engine.requests import FinishedEvent, GenerateRequest
from chorus_server.errors import ChorusError


@dataclass(frozen=True, slots=True)
class AskedBody:
    """What a body asks.

    Attributes:
        items: one for each conversation.
        kept: how many choices of an item answer, the best by mean log probability; None for all.
    """

    call: Call
    items: Sequence[Item]
    conversations: Sequence[Conversation]
    kept: int | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """Generated choices of every item, not written yet."""

    call: Call
    items: Sequence[Item]
    requests: Sequence[GenerateRequest]
    finished: Sequence[FinishedEvent]
    kept: int | None

    @property
    def input_tokens(self) -> int:
        """Of all items."""
        return sum(item.tokens for item in self.items)

    @property
    def output_tokens(self) -> int:
        """Of all choices, also of those that do not answer."""
        return sum(len(sequence.tokens) for each in self.finished for sequence in each.sequences)

    def choices(self) -> Iterator[NativeChoice]:
        """The native choices that answer, item by item."""
        for item, request, event in zip(self.items, self.requests, self.finished, strict=True):
            native = generated(self.call.serving.vocabulary, item, request, event)
            assert not isinstance(native, ChorusError)
            choices = native_choices(native)
            yield from choices if self.kept is None else sorted(choices, key=_mean, reverse=True)[: self.kept]


async def made(asked: AskedBody, items: Sequence[Item]) -> Made:
    """Generate for prepared items. Raises the first item's error: these answers have no room for one."""
    requests = await engine_requests(asked.call, items, stream=False)
    results = await outcomes(asked.call.submit, requests)
    return Made(asked.call, items, requests, [_finished(result) for result in results], asked.kept)


async def whole_answer(asked: AskedBody, shape: Shape) -> Response:
    """Everything at once."""
    async with asked_items(asked.call, asked.items, asked.conversations) as items:
        found = await made(asked, items)
        choices = map(shape.choice, count(), found.choices())
        usage = usage_json(found.input_tokens, found.output_tokens)
        head = warned(shape, asked, items).head(items[0])
        return await list_response("choices", choices, before=head, after={"usage": usage})


async def stream_answer(asked: AskedBody, shape: Shape, *, include_usage: bool) -> Response:
    """Chunks as they come."""

    def stream(
        call: Call, items: Sequence[Item], requests: Sequence[GenerateRequest], held: AsyncExitStack
    ) -> ChunkStream:
        return ChunkStream(call, items, requests, held, warned(shape, asked, items), include_usage)

    return await open_stream(asked.call, asked_items(asked.call, asked.items, asked.conversations), stream)


async def choose_value(asked: AskedBody, choosing: Choosing) -> tuple[Item, int]:
    """The item, prepared, and the place of the value that answers."""
    call = asked.call
    async with asked_items(call, asked.items, asked.conversations) as items:
        requests = await score_requests(call, items, choosing.labels, sent=True, sent_in=choosing.field)
        (outcome,) = await outcomes(call.submit, requests)
        scores = scores_of(outcome)
        if isinstance(scores, ChorusError):
            raise scores
        found = ranked(items[0], choosing.labels, scores, call.serving.base.matrix_dtype)
        return items[0], found.place


def warned(shape: Shape, asked: AskedBody, items: Sequence[Item]) -> Shape:
    """The shape, with what its answer warns of."""
    pairs = zip(asked.conversations, items, strict=True)
    return replace(shape, warnings=[each for pair in pairs for each in warnings_of(*pair)])


def _finished(result: SubmitResult) -> FinishedEvent:
    if isinstance(result, FinishedEvent):
        return result
    raise result if isinstance(result, ChorusError) else unexpected(result)


def _mean(choice: NativeChoice) -> float:
    values: Sequence[Any] = choice["logprobs"]["token_logprobs"]
    return sum(values) / len(values) if values else 0.0
