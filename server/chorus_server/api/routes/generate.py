"""`POST /v1/generate`: text from tasks or the base model, whole or streamed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.disconnect import race
from chorus_server.api.http.responses import INFERENCE_ERRORS
from chorus_server.api.inference.answers import batch_response
from chorus_server.api.inference.calls import Call, call_of, prepared_items
from chorus_server.api.inference.generated import generated
from chorus_server.api.inference.items import Item, generate_items
from chorus_server.api.inference.sampling import sampling_for
from chorus_server.api.inference.streaming import GenerationStream
from chorus_server.api.inference.submit import outcomes
from chorus_server.api.inference.turns import in_turns
from chorus_server.api.schemas.events import generate_stream
from chorus_server.api.schemas.inference import GenerateAnswer, GenerateBody
from chorus_server.engine.requests import GenerateRequest

router = APIRouter(route_class=ChorusRoute, tags=["inference"])


@router.post(
    "/v1/generate",
    response_model=GenerateAnswer,
    responses={**INFERENCE_ERRORS, 200: {"content": {"text/event-stream": generate_stream()}}},
)
async def generate(request: Request, body: GenerateBody, principal: MayInfer) -> Response:
    """Generate text. With `stream`, the events are `token`, `result`, `error` and, last, `done`."""
    call = call_of(request, principal, body.deadline_seconds, body.priority)
    if body.stream:
        return await _stream(call, body)
    return await race(answer_generate(call, body), request.receive)


async def answer_generate(call: Call, body: GenerateBody) -> Response:
    """The whole answer, of an HTTP request or of a line of a batch. A body's `stream` is not looked at."""
    async with prepared_items(call, generate_items(body)) as items:
        requests = await engine_requests(call, items, stream=False)
        results = await outcomes(call.submit, requests)
        answers = map(partial(generated, call.serving.vocabulary), items, requests, results)
        names = (item.identity for item in items)
        return await batch_response(call.request_id, zip(names, answers, strict=True))


async def _stream(call: Call, body: GenerateBody) -> Response:
    async with AsyncExitStack() as stack:
        items = await stack.enter_async_context(prepared_items(call, generate_items(body)))
        requests = await engine_requests(call, items, stream=True)
        await call.reserve(requests)
        stack.callback(call.release, requests)
        # From here the stream owns the held versions and releases them when it ends, however it ends.
        return GenerationStream(call, items, requests, stack.pop_all())


async def engine_requests(call: Call, items: Sequence[Item], *, stream: bool) -> list[GenerateRequest]:
    """The engine's request for each item. All are made before any is submitted."""

    def request(index: int, item: Item) -> GenerateRequest:
        defaults = item.version.manifest.settings if item.version is not None else {}
        sampling = sampling_for(call, item, defaults)
        return GenerateRequest(call.origin(index, item), item.input, sampling, stream)

    return await in_turns(request, range(len(items)), items)
