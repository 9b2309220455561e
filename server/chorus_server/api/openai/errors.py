"""Errors as OpenAI's clients read them, and the class of their routes."""

from __future__ import annotations

import math
import re
from typing import Any

from fastapi import Response
from starlette.routing import compile_path

from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.errors import error_body, error_response, retry_seconds, status_of
from chorus_server.api.http.responses import Responses
from chorus_server.api.schemas.openai.errors import OpenAIError
from chorus_server.errors import ChorusError
from prompts_store.errors import StoreError

PREFIX = "/openai"
"""Where the whole API is: `/openai/v1/...`."""

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
_STATUSES = (400, 401, 403, 404, 413, 429, 500, 503, 504)
_TRY_AGAIN = (429, 503)
_LONGEST_WAIT = 120.0
"""Seconds that OpenAI's clients wait at most; they would try again at once instead."""


def error_type(status: int) -> str:
    """The `type` of an error, by its status."""
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def openai_error_body(error: ChorusError | StoreError, request_id: str) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    said = error_body(error, request_id)
    detail = {
        "message": said["message"],
        "type": error_type(status_of(error)),
        "param": said["field"],
        "code": said["code"],
    }
    return {"error": detail}


def openai_error(error: ChorusError | StoreError, request_id: str) -> Response:
    """The answer to a failed request, and whether to try again: these clients send a POST once more after a
    409, a 429 and every 5xx, unless a header says that it is useless."""
    headers: dict[str, str] = {}
    status, seconds = status_of(error), retry_seconds(error)
    if status in _TRY_AGAIN and math.isfinite(seconds):
        headers["retry-after-ms"] = str(max(1, math.ceil(1000 * seconds)))
    long = status in _TRY_AGAIN and seconds > _LONGEST_WAIT
    if long or status == 409 or error.code in ("engine_dead", "corrupt_blob", "corrupt_file"):
        headers["x-should-retry"] = "false"
    return error_response(error, request_id, headers, body=openai_error_body(error, request_id))


class OpenAIRoute(ChorusRoute):
    """A route whose errors OpenAI's clients read. One that is declared at `/v1/...` answers at
    `/openai/v1/...` too; one whose path would collide with a native route is declared at the second alone."""

    error_answer = staticmethod(openai_error)

    def __init__(self, path: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(path, *args, **kwargs)
        if not path.startswith(PREFIX):
            pattern = compile_path(path)[0].pattern.removeprefix("^")
            whole = pattern.replace(".*)", ".*[^/])")  # no path ends in a slash, whatever its parameters
            self.path_regex = re.compile(f"(?:{PREFIX})?(?:{whole})")


def shaped_errors(model: type, statuses: tuple[int, ...]) -> Responses:
    """Documentation of these error statuses in another API's shape."""
    return {status: {"model": model, "description": error_type(status)} for status in statuses}


def openai_errors(*more: int) -> Responses:
    """Documentation of the errors that every route may answer with, and of these."""
    return shaped_errors(OpenAIError, (*_STATUSES, *more))


OPENAI_ERRORS = openai_errors()
