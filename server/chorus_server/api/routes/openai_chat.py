"""`POST /v1/chat/completions`: conversations answered, in the fields of OpenAI's API."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.http.disconnect import race
from chorus_server.api.inference.answers import json_response
from chorus_server.api.inference.calls import Call, call_of
from chorus_server.api.openai.answering import AskedBody, choose_value, stream_answer, warned, whole_answer
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute
from chorus_server.api.openai.items import items_of
from chorus_server.api.openai.shapes import ChatShape, usage_json
from chorus_server.api.openai.streaming import WrittenStream
from chorus_server.api.openai.structured import Choosing, choosing_of_format, choosing_of_tools
from chorus_server.api.schemas.events import chunk_stream
from chorus_server.api.schemas.openai.chat import ChatAnswer, ChatBody
from chorus_server.errors import InvalidInputError

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])


@router.post(
    "/v1/chat/completions",
    response_model=ChatAnswer,
    response_model_exclude_unset=True,
    responses={**OPENAI_ERRORS, 200: {"content": {"text/event-stream": chunk_stream(ChatAnswer)}}},
)
async def chat_completions(request: Request, body: ChatBody, principal: MayInfer) -> Response:
    """Answer the last message of a conversation."""
    call = call_of(request, principal, body.deadline_seconds, body.priority)
    if not body.stream:
        return await race(answer_chat(call, body), request.receive)
    asked, shape, choosing = _read(call, body)
    usage = bool(body.stream_options and body.stream_options.include_usage)
    if choosing is None:
        return await stream_answer(asked, shape, include_usage=usage)
    answer = await race(_choice(asked, shape, choosing), request.receive)
    return WrittenStream(_chunks(answer, include_usage=usage))


async def answer_chat(call: Call, body: ChatBody) -> Response:
    """The whole answer, of an HTTP request or of a line of a batch. A body's `stream` is not looked at."""
    asked, shape, choosing = _read(call, body)
    if choosing is None:
        return await whole_answer(asked, shape)
    return json_response(await _choice(asked, shape, choosing))


def _read(call: Call, body: ChatBody) -> tuple[AskedBody, ChatShape, Choosing | None]:
    conversation = body.messages
    choosing = choosing_of_tools(body.tools, body.tool_choice) or choosing_of_format(body.response_format)
    logprobs = bool(body.logprobs)
    if body.top_logprobs and not logprobs:
        raise InvalidInputError("It needs logprobs: true.", field="top_logprobs")
    if choosing is not None and (logprobs or (body.n or 1) > 1):
        raise InvalidInputError(
            "The values of an enum are ranked, and the best is the one answer; ask /v1/decisions for the "
            "probabilities of all.",
            field="logprobs" if logprobs else "n",
        )
    most = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    items = items_of(call, body, [conversation], max_tokens=most, logprobs=logprobs)
    return AskedBody(call, items, [conversation]), ChatShape(call, logprobs), choosing


async def _choice(asked: AskedBody, shape: ChatShape, choosing: Choosing) -> dict[str, Any]:
    """The answer that ranking gives: a JSON text, or the call of a tool."""
    item, place = await choose_value(asked, choosing)
    content, calls, reason = choosing.text(place), {}, "stop"
    if choosing.tool is not None:
        function = {"name": choosing.tool, "arguments": content}
        call = {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
        calls, reason = {"tool_calls": [call]}, "tool_calls"
    message = {
        "role": "assistant",
        "content": content if choosing.tool is None else None,
        "refusal": None,
        **calls,
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    head = warned(shape, asked, [item]).head(item)
    return head | {"choices": [choice], "usage": usage_json(item.tokens, 0)}


def _chunks(answer: Mapping[str, Any], *, include_usage: bool) -> list[dict[str, Any]]:
    """A whole answer as a stream's chunks."""
    (choice,) = answer["choices"]
    message = dict(choice["message"])
    for at, call in enumerate(message.get("tool_calls", [])):
        message["tool_calls"][at] = {"index": at, **call}
    head = {**answer, "object": ChatShape.chunk}
    usage = head.pop("usage")
    same = {"index": 0, "logprobs": None}
    choices = [
        {**same, "delta": message, "finish_reason": None},
        {**same, "delta": {}, "finish_reason": choice["finish_reason"]},
    ]
    nothing = {"usage": None} if include_usage else {}
    chunks = [{**head, "choices": [each], **nothing} for each in choices]
    return chunks + ([{**head, "choices": [], "usage": usage}] if include_usage else [])
