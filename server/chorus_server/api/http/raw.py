"""Whole HTTP answers as bytes, for requests that no route sees."""

from __future__ import annotations

import http
from collections.abc import Iterable

from starlette.responses import Response

_LINE = b"\r\n"


def raw_response(answer: Response) -> bytes:
    """An answer as the bytes to send, without the headers that every answer of the server carries."""
    status = answer.status_code
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}".encode()]
    lines += [name + b": " + value for name, value in answer.raw_headers]
    return _LINE.join([*lines, b"", bytes(answer.body)])


def with_headers(answer: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """An answer's bytes with further headers."""
    first, _, rest = answer.partition(_LINE)
    return _LINE.join([first, *(name + b": " + value for name, value in headers), rest])
