"""The shape of an inference answer: items in the order asked, failures per item."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from fastapi import Response
from pydantic_core import to_json
from starlette.responses import StreamingResponse

from server.api.http.errors import error_body, error_response
from server.api.inference.turns import TURN_SECONDS
from server.errors import ChorusError, InternalError

Answered = tuple[Mapping[str, Any], dict[str, Any] | ChorusError]
"""What identifies an item in its error (`{"task": ...}`), and its answer or error."""

_PIECE_BYTES = 64 << 10


def json_response(payload: Mapping[str, Any], status: int = 200) -> Response:
    """A JSON answer; what is not finite becomes null, so that it stays JSON."""
    return Response(to_json(payload, inf_nan_mode="null"), status, media_type="application/json")


async def batch_response(request_id: str, items: Iterable[Answered]) -> Response:
    """The answer to a batch: 200 if one item succeeded, else the first item's error.

    Args:
        items: made while the answer is sent, so that a large one is never in memory whole.
    """
    rest = iter(items)
    errors: list[tuple[Mapping[str, Any], ChorusError]] = []
    for name, result in rest:
        if isinstance(result, ChorusError):
            errors.append((name, result))
        else:
            break
    else:
        return error_response(errors[0][1], request_id)
    pieces = _pieces(request_id, chain(errors, [(name, result)], rest))
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


async def _pieces(request_id: str, items: Iterator[Answered]) -> AsyncIterator[bytes]:
    """The JSON in pieces, with a turn of the event loop after each `TURN_SECONDS`."""
    written = bytearray(b'{"id":' + to_json(request_id) + b',"results":')
    until, sign = time.perf_counter() + TURN_SECONDS, b"["
    for name, result in items:
        item = failed_item(name, result, request_id) if isinstance(result, ChorusError) else result
        written += sign + to_json(item, inf_nan_mode="null")
        sign = b","
        if len(written) >= _PIECE_BYTES:
            yield bytes(written)
            written.clear()
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + TURN_SECONDS
    yield bytes(written + b"]}")


def failed_item(name: Mapping[str, Any], error: ChorusError, request_id: str) -> dict[str, Any]:
    """One item that failed after validation."""
    return {**name, "error": error_body(error, request_id)}


def unexpected(outcome: object) -> ChorusError:
    """The engine answered with another kind of event than the request asks for, which is a defect."""
    return InternalError(f"The engine answered with {type(outcome).__name__}.")
