"""From httpx2's responses and exceptions to Chorus's: the rules that both transports share."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from pydantic import ValidationError

from chorus.errors import (
    BY_STATUS,
    CallTimeoutError,
    ChorusError,
    ConnectionFailedError,
    ConnectionLostError,
    UnexpectedAnswerError,
)
from chorus.limits import Deadline
from chorus.retries import RetryPolicy, parse_retry_after
from chorus.types.base import ErrorDetail
from chorus.wire import Answer, Request

RETRIED_STATUSES = frozenset({429, 503})


def is_answer(request: Request, status: int) -> bool:
    """Whether the status means an answer of the route rather than an error."""
    return 200 <= status < 300 or status in request.also_answers


def error_of(answer: Answer) -> ChorusError:
    """The exception for an error answer.

    If every item of a batch failed, the answer has the first item's status and each item's own error. The
    first item's error is raised.
    """
    retry_after = parse_retry_after(answer.headers.get("retry-after"))
    detail = _detail(answer.content)
    if detail is not None:
        return detail.as_error(answer.status, retry_after)
    kind = BY_STATUS.get(answer.status)
    if answer.status in RETRIED_STATUSES and kind is not None:
        # A proxy in front of the server may refuse in its own words.
        message = f"The server, or a proxy in front of it, answered {answer.status} without saying why."
        return kind(message, code="overloaded", status=answer.status, retry_after_seconds=retry_after)
    return UnexpectedAnswerError(
        f"The answer has status {answer.status} and does not come from Chorus: check the URL and any proxy."
    )


def _detail(content: bytes) -> ErrorDetail | None:
    try:
        body: Any = json.loads(content)  # not strictly: any answer becomes an error of ours
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    found = body.get("error")
    results = body.get("results")
    if found is None and isinstance(results, list) and results and isinstance(results[0], dict):
        found = results[0].get("error")
    try:
        return None if found is None else ErrorDetail.model_validate(found)
    except ValidationError:
        return None


def failure_of(error: httpx2.HTTPError, url: httpx2.URL, deadline: Deadline) -> ChorusError:
    """The exception for a request that got no answer."""
    if deadline.over:
        return deadline.error()
    where = f"{url.scheme}://{url.netloc.decode('ascii')}"
    reason = str(error) or type(error).__name__
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError():
            return ConnectionFailedError(f"No connection to {where}: {reason}. Is the server running there?")
        case httpx2.PoolTimeout():
            return CallTimeoutError("Every connection of this client stayed busy; raise max_connections.")
        case httpx2.TimeoutException():
            return CallTimeoutError(f"{where} did not answer in time; raise timeout_seconds or ask for less.")
        case _:
            return ConnectionLostError(
                f"The connection to {where} broke before the answer was complete: {reason}."
            )


def may_repeat(request: Request, error: ChorusError, status: int | None, policy: RetryPolicy) -> bool:
    """Whether the request may be tried again after this failure.

    Args:
        status: of the answer; None if there was none.
    """
    if status in RETRIED_STATUSES or isinstance(error, ConnectionFailedError):
        return True
    # If a proxy says in its own words that the server failed, the connection behind it broke.
    behind = status is not None and status >= 500 and isinstance(error, UnexpectedAnswerError)
    lost = behind or (status is None and isinstance(error, ConnectionLostError))
    return lost and (request.repeatable or (request.inference and policy.repeat_inference))
