"""`POST /v1/generate`: text from tasks or the base model, whole or streamed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from fastapi import APIRouter, Request, Response

from server.api.http.auth import MayInfer
from server.api.http.disconnect import race
from server.api.http.responses import INFERENCE_ERRORS
from server.api.http.routing import ChorusRoute
from server.api.inference.answers import batch_response
from server.api.inference.generated import generated
from server.api.inference.items import generate_items
from server.api.inference.prepare import answer_start
from server.api.inference.sampling import merge_settings, sampling_for
from server.api.inference.streaming import GenerationStream
from server.api.inference.submit import origin_of, outcomes
from server.api.inference.turns import in_turns
from server.api.inference.work import Call, Work, call_of, identity, name_of, prepared_items
from server.api.schemas.events import generate_stream
from server.api.schemas.inference import GenerateAnswer, GenerateBody, GenerationSettings
from server.engine.requests import GenerateRequest

router = APIRouter(route_class=ChorusRoute, tags=["inference"])


@router.post(
    "/v1/generate",
    response_model=GenerateAnswer,
    responses={**INFERENCE_ERRORS, 200: {"content": {"text/event-stream": generate_stream()}}},
)
async def generate(request: Request, body: GenerateBody, principal: MayInfer) -> Response:
    """Generate text. With `stream`, events `token`, `result`, `error` and, last, `done`."""
    call = call_of(request, principal, body.deadline_seconds)
    if body.stream:
        return await _stream(call, body)
    return await race(_answer(call, body), request.receive)


async def _answer(call: Call, body: GenerateBody) -> Response:
    async with prepared_items(call, generate_items(body)) as works:
        requests = await engine_requests(call, works, stream=False)
        results = await outcomes(call.submit, requests)
        answers = map(partial(generated, call.serving.vocabulary), works, requests, results)
        names = (identity(work.version) for work in works)
        return await batch_response(call.request_id, zip(names, answers, strict=True))


async def _stream(call: Call, body: GenerateBody) -> Response:
    async with AsyncExitStack() as stack:
        items = generate_items(body)
        works = await stack.enter_async_context(prepared_items(call, items))
        requests = await engine_requests(call, works, stream=True)
        # From here the stream owns the held versions and lets them go when it ends, however it ends.
        return GenerationStream(call, works, requests, stack.pop_all())


async def engine_requests(call: Call, works: Sequence[Work], *, stream: bool) -> list[GenerateRequest]:
    """The engine's request for each item; all are made before any is submitted."""

    def request(index: int, work: Work) -> GenerateRequest:
        own = work.item.settings or GenerationSettings()
        version = work.version
        defaults = version.manifest.settings if version is not None else {}
        sampling = sampling_for(
            merge_settings(own, work.item.beside, defaults, work.item.prefix, work.item.task_field),
            call.serving.limits,
            work.prepared.tokens,
            call.services.settings.default_max_new_tokens,
            len(answer_start(call.serving.vocabulary, version)),
        )
        task = name_of(version) if version is not None else ""
        origin = origin_of(call.principal, call.request_id, index, task, call.left())
        return GenerateRequest(origin, work.prepared.parts, sampling, stream)

    return await in_turns(request, range(len(works)), works)
