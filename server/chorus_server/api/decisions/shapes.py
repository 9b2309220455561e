"""Errors as TypeSafe's clients read them, and the class of their route."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response

from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.context import context_of
from chorus_server.api.http.errors import error_body, error_response, status_of
from chorus_server.api.openai.errors import error_type, shaped_errors
from chorus_server.api.schemas.decisions import SystemOneError, SystemValidationError
from chorus_server.api.schemas.questions import QuestionError
from chorus_server.errors import ChorusError
from prompts_store.errors import StoreError

SYSTEM_REQUEST_ID = "x-typesafe-request-id"

_MALFORMED = 400
_STATUSES = (401, 403, 404, 413, 429, 500, 503, 504)


def system_one_error(error: ChorusError | StoreError, request_id: str) -> Response:
    """A malformed body is a 422 with the place of what is wrong; all else has a type and a message, and
    our own code beside."""
    said = error_body(error, request_id)
    status = 405 if error.code == "method_not_allowed" else status_of(error)
    headers = {SYSTEM_REQUEST_ID: request_id}
    if status != _MALFORMED:
        body: dict[str, Any] = {
            "error_type": error_type(status),
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


SYSTEM_ONE_ERRORS = shaped_errors(SystemOneError, _STATUSES) | {
    422: {"model": SystemValidationError, "description": "The request is malformed; `loc` says where."}
}
