"""Errors in the shapes of the APIs whose clients call these routes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response

from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.context import context_of
from chorus_server.api.http.errors import error_body, error_response, status_of
from chorus_server.api.http.responses import Responses
from chorus_server.api.schemas.decisions import OpenAIError, SystemOneError, SystemValidationError
from chorus_server.api.schemas.questions import QuestionError
from chorus_server.errors import ChorusError
from prompts_store.errors import StoreError

SYSTEM_REQUEST_ID = "x-typesafe-request-id"

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    499: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_MALFORMED = 400
_STATUSES = (401, 403, 404, 413, 429, 500, 503, 504)


def _type(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def openai_error(error: ChorusError | StoreError, request_id: str) -> Response:
    """`{"error": {"message", "type", "param", "code"}}`."""
    said = error_body(error, request_id)
    body = {
        "message": said["message"],
        "type": _type(status_of(error)),
        "param": said["field"],
        "code": said["code"],
    }
    return error_response(error, request_id, body={"error": body})


def system_one_error(error: ChorusError | StoreError, request_id: str) -> Response:
    """A malformed body is a 422 with the place of what is wrong; all else has a type and a message, and
    our own code beside."""
    said = error_body(error, request_id)
    status = 405 if error.code == "method_not_allowed" else status_of(error)
    headers = {SYSTEM_REQUEST_ID: request_id}
    if status != _MALFORMED:
        body: dict[str, Any] = {
            "error_type": _type(status),
            "message": said["message"],
            "x_code": said["code"],
        }
        return error_response(error, request_id, headers, body={"detail": body})
    if isinstance(error, QuestionError):
        place = list(error.place)
    else:
        place = [part for part in (said["field"] or "").split(".") if part not in ("", "body")]
    problem = {"loc": ["body", *place], "msg": said["message"], "type": said["code"]}
    return error_response(error, request_id, headers, body={"detail": [problem]}, status=422)


class OpenAIRoute(ChorusRoute):
    """A route whose errors OpenAI's clients read."""

    error_answer = staticmethod(openai_error)


class SystemOneRoute(ChorusRoute):
    """A route whose errors TypeSafe's clients read, with the request's id in their header."""

    error_answer = staticmethod(system_one_error)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def tagged(request: Request) -> Response:
            context = context_of(request)
            context.headers[SYSTEM_REQUEST_ID] = context.request_id
            return await handler(request)

        return tagged


def _documented(model: type, statuses: tuple[int, ...]) -> Responses:
    return {status: {"model": model, "description": _type(status)} for status in statuses}


OPENAI_ERRORS = _documented(OpenAIError, (_MALFORMED, *_STATUSES))
SYSTEM_ONE_ERRORS = _documented(SystemOneError, _STATUSES) | {
    422: {"model": SystemValidationError, "description": "The request is malformed; `loc` says where."}
}
