"""JSON answers: items in the order of the request; each item may fail by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from itertools import chain
from typing import Any

from fastapi import Response
from pydantic_core import to_json
from starlette.responses import StreamingResponse

from chorus_server.api.http.errors import error_body, error_response
from chorus_server.api.inference.turns import turns
from chorus_server.errors import ChorusError, InternalError

Answered = tuple[Mapping[str, Any], dict[str, Any] | ChorusError]
"""What identifies an item if it fails (`{"task": ...}`), and its answer or error."""

_PIECE_BYTES = 64 << 10


def json_response(payload: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON answer. Numbers that are not finite become null, because JSON has none."""
    return Response(to_json(payload, inf_nan_mode="null"), status, media_type="application/json")


async def list_response(
    name: str,
    items: Iterable[Mapping[str, Any]],
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> Response:
    """A JSON answer with one list that may be long.

    Args:
        items: made while the answer is written, with turns of the event loop between them. A large answer is
            sent in pieces and is never in memory whole.
        before, after: the object's other fields, before and after the list.
    """
    opening, closing = _fields(before), _fields(after)
    begin = b"{" + (opening and opening + b",") + to_json(name) + b":["
    pieces = _pieces(begin, items, b"]" + (closing and b"," + closing) + b"}")
    first = await anext(pieces)
    second = await anext(pieces, None)
    if second is None:
        return Response(first, media_type="application/json")

    async def content() -> AsyncIterator[bytes]:
        yield first
        yield second
        async for piece in pieces:
            yield piece

    return StreamingResponse(content(), media_type="application/json")


async def batch_response(request_id: str, items: Iterable[Answered]) -> Response:
    """The answer to a batch: 200 if any item succeeded, else the first item's error."""
    rest = iter(items)
    errors: list[tuple[Mapping[str, Any], ChorusError]] = []
    for name, result in rest:
        if isinstance(result, ChorusError):
            errors.append((name, result))
        else:
            break
    else:
        return error_response(errors[0][1], request_id)
    every: Iterable[Answered] = chain(errors, [(name, result)], rest)
    answered = (
        failed_item(name, result, request_id) if isinstance(result, ChorusError) else result
        for name, result in every
    )
    return await list_response("results", answered, before={"id": request_id})


async def _pieces(
    begin: bytes, items: Iterable[Mapping[str, Any]], end: bytes
) -> AsyncGenerator[bytes, None]:
    written = bytearray(begin)
    comma = b""
    async with aclosing(turns(items)) as paced:
        async for item in paced:
            written += comma + to_json(item, inf_nan_mode="null")
            comma = b","
            if len(written) >= _PIECE_BYTES:
                yield bytes(written)
                written.clear()
    yield bytes(written + end)


def _fields(fields: Mapping[str, Any] | None) -> bytes:
    """The fields of an object, without its braces."""
    return b",".join(
        to_json(name) + b":" + to_json(value, inf_nan_mode="null") for name, value in (fields or {}).items()
    )


def failed_item(name: Mapping[str, Any], error: ChorusError, request_id: str) -> dict[str, Any]:
    """One item that failed after validation."""
    return {**name, "error": error_body(error, request_id)}


def unexpected(outcome: object) -> ChorusError:
    """The engine answered with another kind of event than the request asked for. That is a defect."""
    return InternalError(f"The engine answered with {type(outcome).__name__}.")
