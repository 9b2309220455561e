"""Which errors a route documents in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from chorus_server.api.schemas.common import ErrorAnswer

Responses = dict[int | str, dict[str, Any]]

_MEANING = {
    400: "The request is malformed; `field` says where.",
    401: "No valid key.",
    403: "The key lacks the scope.",
    404: "No such object in this tenant.",
    409: "The object is not in a state that allows this.",
    413: "The body is larger than the server reads.",
    422: "The `Idempotency-Key` came with another request.",
    429: "The caller's quota is used up; see Retry-After.",
    499: "The caller left.",
    500: "A defect of the server.",
    503: "Starting, stopping, or the queue is full; see Retry-After.",
    504: "The deadline passed.",
}


def errors(*statuses: int) -> Responses:
    """Documentation of these error statuses."""
    return {status: {"model": ErrorAnswer, "description": _MEANING[status]} for status in statuses}


INFERENCE_ERRORS = errors(400, 401, 403, 404, 413, 429, 500, 503, 504)
READ_ERRORS = errors(400, 401, 403, 404, 429, 500, 503)
WRITE_ERRORS = errors(400, 401, 403, 404, 409, 413, 429, 500, 503)
CREATION_ERRORS = {**WRITE_ERRORS, **errors(422)}
