"""`POST /v1/completions`: texts answered, in the fields of OpenAI's API."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.http.disconnect import race
from chorus_server.api.inference.calls import Call, call_of
from chorus_server.api.openai.answering import AskedBody, stream_answer, whole_answer
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute
from chorus_server.api.openai.items import items_of
from chorus_server.api.openai.shapes import TextShape
from chorus_server.api.schemas.events import chunk_stream
from chorus_server.api.schemas.openai.completions import CompletionsAnswer, CompletionsBody
from chorus_server.errors import InvalidInputError

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])


@router.post(
    "/v1/completions",
    response_model=CompletionsAnswer,
    responses={**OPENAI_ERRORS, 200: {"content": {"text/event-stream": chunk_stream(CompletionsAnswer)}}},
)
async def completions(request: Request, body: CompletionsBody, principal: MayInfer) -> Response:
    """Answer texts."""
    call = call_of(request, principal, body.deadline_seconds, body.priority)
    if body.stream:
        asked, shape = _read(call, body)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await stream_answer(asked, shape, include_usage=usage)
    return await race(answer_completions(call, body), request.receive)


async def answer_completions(call: Call, body: CompletionsBody) -> Response:
    """The whole answer, of an HTTP request or of a line of a batch. A body's `stream` is not looked at."""
    return await whole_answer(*_read(call, body))


def _read(call: Call, body: CompletionsBody) -> tuple[AskedBody, TextShape]:
    conversations = body.prompt
    kept, best_of = body.n or 1, body.best_of or body.n or 1
    if best_of < kept:
        raise InvalidInputError(f"It is {best_of}, fewer than the {kept} of n.", field="best_of")
    if best_of > kept and body.stream:
        raise InvalidInputError("The best are known at the end only: do not stream.", field="best_of")
    logprobs = body.logprobs is not None
    if body.echo and logprobs:
        raise InvalidInputError(
            "The model does not write the prompt, which has no log probabilities: leave out echo.",
            field="echo",
        )
    items = items_of(
        call,
        body,
        conversations,
        max_tokens="max_tokens",
        logprobs=logprobs or best_of > kept,
        more={"n": (body.best_of, "best_of"), "top_logprobs": (body.logprobs, "logprobs")},
    )
    echoes = [each.text for each in conversations] if body.echo else []
    asked = AskedBody(call, items, conversations, kept if best_of > kept else None)
    return asked, TextShape(call, logprobs, echoes=echoes, each=kept)
