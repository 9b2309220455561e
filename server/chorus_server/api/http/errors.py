"""Every failure becomes one JSON shape: `{"error": {"code", "message", "field", "request_id"}}`. Where a
limit is used up, `quota` says which.

The table `STORE_STATUS` gives each error code of the store its status. A test fails if a code is missing
there.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ExceptionHandler

from chorus_server.api.http.context import context_of, request_id_of
from chorus_server.errors import (
    CancelledError,
    ChorusError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    ShuttingDownError,
)
from chorus_server.validation import input_error
from prompts_store.errors import ArtifactError, InvalidError, Quota, StoreError

LOG = logging.getLogger("chorus.api")

STORE_STATUS: dict[str, int] = {
    "store_unavailable": 503,
    "not_found": 404,
    "unknown_task": 404,
    "unknown_version": 404,
    "unknown_alias": 404,
    "unknown_calibration": 404,
    "unknown_ensemble": 404,
    "unknown_pack": 404,
    "unknown_file": 404,
    "unknown_job": 404,
    "unknown_tenant": 404,
    "unknown_key": 404,
    "unknown_grant": 404,
    "no_store": 404,
    "conflict": 409,
    "alias_moved": 409,
    "file_in_use": 409,
    "file_deleted": 409,
    "job_over": 409,
    "job_not_stopped": 409,
    "tenant_exists": 409,
    "too_many_keys": 409,
    "key_exists": 409,
    "key_over": 409,
    "too_many_grants": 409,
    "too_many_aliases": 409,
    "lease_lost": 409,
    "other_store": 409,
    "store_not_empty": 409,
    "mass_removal": 409,
    "corrupt_blob": 500,
    "corrupt_file": 500,
    "too_large": 413,
    "idempotency_key_reused": 422,
    "limit_exceeded": 429,
    "too_many_jobs": 429,
}
"""HTTP status by error code. Any other code of an InvalidError, such as an ArtifactError's reason, is a
400."""

RETRY_SECONDS: dict[str, float] = {"too_many_jobs": 60.0, "limit_exceeded": 60.0}
"""Seconds until a retry, by error code; one second for others. A job takes minutes, and somebody has to
delete what is stored: nobody knows when."""

ErrorShape = Callable[[ChorusError | StoreError, str], Response]
"""Makes the answer to a failed request, whose id it gets."""

_MESSAGE_CHARACTERS = 600
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd]")


class StoreAnswerError(ChorusError):
    """An error of the store, with the status that its code has in `STORE_STATUS`."""

    def __init__(self, error: StoreError, field: str | None = None) -> None:
        retry = retry_seconds(error) if status_of(error) in (429, 503) else None
        super().__init__(
            error.message, field=field or error.field, code=error.code, retry_after_seconds=retry
        )
        self.answer_status = status_of(error)


def status_of(error: Exception) -> int:
    """HTTP status of an error."""
    if isinstance(error, StoreAnswerError):
        return error.answer_status
    if isinstance(error, ChorusError):
        return error.status
    if isinstance(error, InvalidError | ArtifactError):
        return STORE_STATUS.get(error.code, 400)
    if isinstance(error, StoreError):
        return STORE_STATUS.get(error.code, 500)
    return 500


def error_body(error: ChorusError | StoreError, request_id: str) -> dict[str, Any]:
    """The object under `error`; with `quota`, if a limit of the tenant's or the key's was reached."""
    body = {
        "code": error.code,
        "message": clean(error.message),
        "field": clean(error.field) if error.field else None,
        "request_id": request_id,
    }
    quota = getattr(error, "quota", None)
    if quota is None:
        return body
    return body | {"quota": asdict(quota) if isinstance(quota, Quota) else quota}


def clean(text: str) -> str:
    """Make a message fit for logs and terminals: no control or unassigned characters, and a bounded
    length."""
    printable = _UNPRINTABLE.sub("?", text[: _MESSAGE_CHARACTERS + 1])
    return printable if len(text) <= _MESSAGE_CHARACTERS else printable[:_MESSAGE_CHARACTERS] + "..."


def error_response(
    error: ChorusError | StoreError,
    request_id: str,
    more: Mapping[str, str] | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    status: int | None = None,
) -> Response:
    """The answer to a failed request, with `Retry-After` if trying again can help.

    Args:
        more: further headers.
        body, status: of another API's shape, in place of our own.
    """
    status = status_of(error) if status is None else status
    headers = dict(more or {})
    if status in (429, 503) and math.isfinite(seconds := retry_seconds(error)):
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    shape = {"error": error_body(error, request_id)} if body is None else body
    return Response(to_json(shape), status, headers, media_type="application/json")


def _answer(request: Request, error: ChorusError | StoreError) -> Response:
    """The answer to a failed request in the shape of its route, which may be another API's; where there is no
    route, of the API that is below this path."""
    shapes: Mapping[str, ErrorShape] = request.app.state.error_shapes
    below = (shape for prefix, shape in shapes.items() if request.url.path.startswith(prefix))
    shape = getattr(request.scope.get("route"), "error_answer", None) or next(below, error_response)
    return shape(error, request_id_of(request))


def retry_seconds(error: ChorusError | StoreError) -> float:
    """Seconds until trying again may help, for a 429 or a 503; infinite if it never does."""
    known: float | None = getattr(error, "retry_after_seconds", None)
    return RETRY_SECONDS.get(error.code, 1.0) if known is None else known


def install_error_handlers(app: FastAPI, shapes: Mapping[str, ErrorShape]) -> None:
    """Answer every exception of a route in the same shape.

    Args:
        shapes: of other APIs, by what their paths begin with.
    """
    app.state.error_shapes = shapes
    handlers: dict[Any, ExceptionHandler] = {
        ChorusError: _known,
        StoreError: _known,
        ClientDisconnect: _left,
        RequestValidationError: _validation,
        HTTPException: _http,
        Exception: _unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChorusError | StoreError)
    if status_of(error) >= 500:
        expected = isinstance(error, ShuttingDownError | OverloadedError)  # there are thousands under load
        LOG.log(
            logging.DEBUG if expected else logging.WARNING,
            "request %s failed: %s: %s",
            request_id_of(request),
            error.code,
            clean(error.message),
            extra=context_of(request).names,
        )
    return _answer(request, error)


async def _left(request: Request, error: Exception) -> Response:
    """Nobody reads this answer, but the access log and the metrics record it."""
    return _answer(request, CancelledError("The caller left before the body was whole."))


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    located = problem | {"loc": problem["loc"][1:]}  # the first part says query, path or header
    return _answer(request, input_error(located))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        known: ChorusError = NotFoundError(
            "There is no such route: no path ends in a slash."
            if request.url.path.endswith("/")
            else "There is no such route; the routes are listed at /openapi.json."
        )
    elif error.status_code == 405:
        allowed = ", ".join(_methods_at(request))
        known = InvalidInputError(
            f"The route does not take this method; it takes {allowed}.", code="method_not_allowed"
        )
        response = _answer(request, known)
        response.status_code = 405
        response.headers["Allow"] = allowed
        return response
    else:
        known = InvalidInputError("The request is malformed.", field="body")
    return _answer(request, known)


def _methods_at(request: Request) -> list[str]:
    """Every method that the path of a request takes."""
    scopes = (
        (method, {**request.scope, "method": method}) for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
    )
    taken = [
        method
        for method, scope in scopes
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    ]
    return ["GET", "HEAD", *taken[1:]] if "GET" in taken else taken


async def _unexpected(request: Request, error: Exception) -> Response:
    """Answer an exception that passed every middleware."""
    extra = context_of(request).names
    LOG.error("request %s failed unexpectedly", request_id_of(request), exc_info=error, extra=extra)
    failed = InternalError("The server failed: look up the request id in its log to find the cause.")
    response = _answer(request, failed)
    response.headers["X-Request-Id"] = request_id_of(request)
    return response
