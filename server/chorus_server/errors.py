"""Every error that the server may answer with: one tree, one JSON shape.

    ChorusError
    ├── InvalidInputError      400  the request is malformed or a value is out of range; names the field
    │   ├── InputTooLongError  400  more tokens than the model's limit
    │   ├── InvalidModelError  400  a checkpoint or its config cannot be read
    │   └── ModelMismatchError 400  an artifact belongs to another base model
    ├── UnauthenticatedError   401
    ├── ForbiddenError         403
    ├── NotFoundError          404
    ├── ConflictError          409
    ├── TooLargeError          413
    ├── QuotaExceededError     429  the caller's own quota; carries Retry-After
    ├── CancelledError         499  the caller left
    ├── InternalError          500
    ├── OverloadedError        503  the server's queue is full; carries Retry-After
    ├── NotReadyError          503
    │   └── ShuttingDownError  503  the process is ending, in good order
    ├── EngineDeadError        503  the engine stopped; the process is ending
    └── DeadlineExceededError  504

The JSON shape is `{"error": {"code", "message", "field", "request_id"}}`; `code` is stable and
machine-readable, `message` says what was received, what was expected and what to do. With the code
`limit_exceeded` there is a `quota` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ChorusError(Exception):
    """Something went wrong; the subclass says what.

    Args:
        message: one sentence for a person, with what to do next.
        field: the request field or setting at fault, as a dotted path (`requests.3.task`), if there is one.
        code: a narrower code, in place of the class's own.
        retry_after_seconds: when to try again, for errors that go away by themselves; infinite if it is never
            of use.
        quota: the limit that is used up: whose it is, its name, window, and use.
    """

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        code: str | None = None,
        retry_after_seconds: float | None = None,
        quota: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code or self.default_code
        self.retry_after_seconds = retry_after_seconds
        self.quota = quota


class InvalidInputError(ChorusError):
    """The request is malformed, or a value is out of range."""

    status = 400
    default_code = "invalid_input"


class InputTooLongError(InvalidInputError):
    """The prompt and the text together exceed the model's limit."""

    default_code = "input_too_long"


class InvalidModelError(InvalidInputError):
    """A checkpoint, its config or its vocabulary cannot be read."""

    default_code = "invalid_model"


class ModelMismatchError(InvalidInputError):
    """The artifact belongs to another base model."""

    default_code = "base_mismatch"


class UnauthenticatedError(ChorusError):
    """The request came without a valid key."""

    status = 401
    default_code = "unauthenticated"


class ForbiddenError(ChorusError):
    """The key does not allow this."""

    status = 403
    default_code = "forbidden"


class NotFoundError(ChorusError):
    """There is no such object for this caller."""

    status = 404
    default_code = "not_found"


class ConflictError(ChorusError):
    """The object is not in a state that allows this."""

    status = 409
    default_code = "conflict"


class TooLargeError(ChorusError):
    """The body is larger than the server accepts."""

    status = 413
    default_code = "too_large"


class QuotaExceededError(ChorusError):
    """The caller's own quota is used up."""

    status = 429
    default_code = "quota_exceeded"


class CancelledError(ChorusError):
    """The caller left before the answer was ready."""

    status = 499
    default_code = "cancelled"


class InternalError(ChorusError):
    """A defect of the server."""


class OverloadedError(ChorusError):
    """The server's queue is full."""

    status = 503
    default_code = "overloaded"


class NotReadyError(ChorusError):
    """The server is starting."""

    status = 503
    default_code = "not_ready"


class ShuttingDownError(NotReadyError):
    """The server is ending: it accepts nothing new, and gives up what it could not finish in time."""

    default_code = "shutting_down"


def shutting_down() -> ShuttingDownError:
    """A new error for each request, because a raised exception collects tracebacks."""
    return ShuttingDownError("The server is shutting down: try another replica.", retry_after_seconds=1.0)


class EngineDeadError(ChorusError):
    """The engine stopped; the process is ending."""

    status = 503
    default_code = "engine_dead"


class DeadlineExceededError(ChorusError):
    """The request's deadline passed before it was answered."""

    status = 504
    default_code = "deadline_exceeded"


def startup_message(error: Exception) -> str:
    """Why a process cannot start: the error's own message, with the setting (or the file) at fault."""
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" ({str(error.filename)[:200]})"
        return f"{error.strerror or error}{where}."
    message, field = getattr(error, "message", str(error)), getattr(error, "field", None)
    named = field is None or message.startswith((f"{field}: ", f"{field} ", f"{field}."))
    return message if named else f"{field}: {message}"
