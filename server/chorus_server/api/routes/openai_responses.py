"""`POST /v1/responses`: one answer at once, in the fields of OpenAI's newer API."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayInfer
from chorus_server.api.http.disconnect import race
from chorus_server.api.inference.answers import json_response
from chorus_server.api.inference.calls import Call, call_of
from chorus_server.api.inference.items import Item
from chorus_server.api.openai.answering import AskedBody, choose_value, made
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute
from chorus_server.api.openai.items import asked_items, items_of, shown_model, warnings_of
from chorus_server.api.openai.shapes import usage_in_details
from chorus_server.api.openai.structured import choosing_of_format, choosing_of_tools
from chorus_server.api.schemas.openai.messages import Conversation
from chorus_server.api.schemas.openai.responses import ResponseAnswer, ResponsesBody

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])


@router.post("/v1/responses", response_model=ResponseAnswer, responses=OPENAI_ERRORS)
async def responses(request: Request, body: ResponsesBody, principal: MayInfer) -> Response:
    """Answer a text, or the last message of a conversation."""
    call = call_of(request, principal, body.deadline_seconds, body.priority)
    return await race(_answer(call, body), request.receive)


async def _answer(call: Call, body: ResponsesBody) -> Response:
    conversation = _conversation(body)
    items = items_of(
        call, body, [conversation], max_tokens="max_output_tokens", truncate=body.truncation == "auto"
    )
    asked = AskedBody(call, items, [conversation])
    given = body.text.format if body.text is not None else None
    choosing = choosing_of_tools(body.tools, body.tool_choice) or choosing_of_format(given, "text.format")
    if choosing is not None:
        item, place = await choose_value(asked, choosing)
        output = _message(choosing.text(place))
        if choosing.tool is not None:
            output = _call(choosing.tool, choosing.text(place))
        return json_response(_response(call, body, item, output, 0, warnings_of(conversation, item)))
    async with asked_items(call, items, [conversation]) as prepared:
        found = await made(asked, prepared)
        (choice,) = found.choices()
        output = _message(choice["text"], whole=choice["finish_reason"] != "length")
        warnings = warnings_of(conversation, prepared[0])
        return json_response(_response(call, body, prepared[0], output, found.output_tokens, warnings))


def _conversation(body: ResponsesBody) -> Conversation:
    asked: Conversation = body.input
    if not body.instructions:
        return asked
    lines = [body.instructions.encode(), asked.system]
    return replace(asked, system=b"\n".join(filter(None, lines)))


def _message(text: str, *, whole: bool = True) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_{secrets.token_hex(12)}",
        "role": "assistant",
        "status": "completed" if whole else "incomplete",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{secrets.token_hex(12)}",
        "call_id": f"call_{secrets.token_hex(12)}",
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def _response(
    call: Call,
    body: ResponsesBody,
    item: Item,
    output: dict[str, Any],
    output_tokens: int,
    warnings: list[str],
) -> dict[str, Any]:
    whole = output["status"] == "completed"
    return {
        "id": f"resp_{call.request_id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": output["status"],
        "error": None,
        "incomplete_details": None if whole else {"reason": "max_output_tokens"},
        "instructions": body.instructions,
        "metadata": body.metadata or {},
        "model": shown_model(call, item),
        "system_fingerprint": call.serving.base.system_fingerprint,
        **({"warnings": warnings} if warnings else {}),
        "output": [output],
        "parallel_tool_calls": False,
        "temperature": body.temperature,
        "tool_choice": body.tool_choice if isinstance(body.tool_choice, str) else "auto",
        "tools": [],  # they may be long, and the caller has them
        "top_p": body.top_p,
        "usage": usage_in_details(item.tokens, output_tokens),
    }
