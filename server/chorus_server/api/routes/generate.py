"""`POST /v1/generate`: text from tasks or the base model, whole or streamed."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.disconnect import race
from chorus_server.api.http.responses import INFERENCE_ERRORS
from chorus_server.api.inference.answers import batch_response
from chorus_server.api.inference.calls import Call, call_of, prepared_items
from chorus_server.api.inference.generated import generated
from chorus_server.api.inference.items import generate_items
from chorus_server.api.inference.sampling import engine_requests
from chorus_server.api.inference.streaming import GenerationStream, open_stream
from chorus_server.api.inference.submit import outcomes
from chorus_server.api.schemas.events import generate_stream
from chorus_server.api.schemas.inference import GenerateAnswer, GenerateBody

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
        return await open_stream(call, prepared_items(call, generate_items(body)), GenerationStream)
    return await race(answer_generate(call, body), request.receive)


async def answer_generate(call: Call, body: GenerateBody) -> Response:
    """The whole answer, of an HTTP request or of a line of a batch. A body's `stream` is not looked at."""
    async with prepared_items(call, generate_items(body)) as items:
        requests = await engine_requests(call, items, stream=False)
        results = await outcomes(call.submit, requests)
        answers = map(partial(generated, call.serving.vocabulary), items, requests, results)
        names = (item.identity for item in items)
        return await batch_response(call.request_id, zip(names, answers, strict=True))
