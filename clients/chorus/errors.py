"""Everything that can go wrong with a call, as the caller sees it.

    ChorusError
        ├── InvalidArgumentError        an argument cannot be sent; nothing was sent
    ├── ConfigurationError          the URL or the key cannot be used
    ├── HubError                    the Hugging Face hub has no such adapter, or does not give it
    ├── ConnectionFailedError       no connection: the server has not seen the request
    ├── ConnectionLostError         the connection broke: the server may have seen it
    ├── CallTimeoutError            no answer in `timeout_seconds`, or no end in `total_seconds`
    ├── UnexpectedAnswerError       an answer that is not Chorus's, or over `max_answer_bytes`
    └── ApiError                    the server's own error: code, message, field, request id
        ├── InvalidInputError       400  invalid_input, and the reasons an artifact is refused for; 422
        │   ├── InputTooLongError   400  input_too_long
        │   ├── InvalidModelError   400  invalid_model
        │   └── ModelMismatchError  400  base_mismatch
        ├── UnauthenticatedError    401
        ├── ForbiddenError          403
        ├── NotFoundError           404  not_found, unknown_task, unknown_file, unknown_job, ...
        ├── ConflictError           409
        ├── TooLargeError           413
        ├── QuotaExceededError      429
        ├── CancelledError          499
        ├── InternalError           500
        ├── OverloadedError         503
        ├── NotReadyError           503
        │   └── ShuttingDownError   503
        ├── EngineDeadError         503
        └── DeadlineExceededError   504

A code that this version does not know is raised as the class of its status.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ChorusError(Exception):
    """A call to Chorus did not succeed. `str(error)` says why in a sentence."""


class InvalidArgumentError(ChorusError, ValueError):
    """An argument cannot be sent, and nothing was sent.

    Args:
        message: what was received and what was expected.
        field: the argument at fault.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class ConfigurationError(ChorusError):
    """The server's URL or the API key cannot be used."""


class HubError(ChorusError):
    """The Hugging Face hub has no such adapter, none that can be used, or does not give or take it."""


class ConnectionFailedError(ChorusError):
    """No connection could be made: the server has not seen the request."""


class ConnectionLostError(ChorusError):
    """The connection broke after the request was sent: the server may have acted on it."""


class CallTimeoutError(ChorusError, TimeoutError):
    """The server did not answer within `timeout_seconds`, or the call was not over after `total_seconds`."""


class UnexpectedAnswerError(ChorusError):
    """The answer does not come from a Chorus server: check the URL and any proxy. Or it is larger than
    `max_answer_bytes`.
    """


class ApiError(ChorusError):
    """The server answered with an error.

    Args:
        message: the server's sentence.
        code: stable, machine-readable error code.
        field: the request field at fault, as a dotted path, or None.
        request_id: identifies the request in the server's log.
        status: HTTP status, or None for one item of a batch.
        retry_after_seconds: after how long the server asks to be tried again.
        quota: the limit that is used up, with the code `limit_exceeded`: `of` (`tenant` or `key`), `limit`
            (`per_minute.requests`), `window`, `most` and `used`.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        field: str | None = None,
        request_id: str | None = None,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        quota: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.request_id = request_id
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.quota = quota


class InvalidInputError(ApiError):
    """The request is malformed, or a value is out of range."""


class InputTooLongError(InvalidInputError):
    """The prompt and the text together exceed the model's limit."""


class InvalidModelError(InvalidInputError):
    """A checkpoint, its config or its vocabulary cannot be read."""


class ModelMismatchError(InvalidInputError):
    """The artifact belongs to another base model."""


class UnauthenticatedError(ApiError):
    """No valid key came with the request: set `api_key` or CHORUS_API_KEY_FILE."""


class ForbiddenError(ApiError):
    """The key does not allow this."""


class NotFoundError(ApiError):
    """There is no such object for this caller."""


class ConflictError(ApiError):
    """The object is not in a state that allows this."""


class TooLargeError(ApiError):
    """The body is larger than the server accepts."""


class QuotaExceededError(ApiError):
    """Your own quota is used up; `quota` says which limit of your tenant or key, if it is one of those."""


class CancelledError(ApiError):
    """The server saw the caller leave before the answer was ready."""


class InternalError(ApiError):
    """A defect of the server."""


class OverloadedError(ApiError):
    """The server's queue is full."""


class NotReadyError(ApiError):
    """The server is starting."""


class ShuttingDownError(NotReadyError):
    """The server is ending and did not do what was asked. Another replica can."""


class EngineDeadError(ApiError):
    """The engine stopped; the process is ending."""


class DeadlineExceededError(ApiError):
    """The request's deadline passed before it was answered."""


BY_CODE: dict[str, type[ApiError]] = {
    "invalid_input": InvalidInputError,
    "invalid_artifact": InvalidInputError,
    "input_too_long": InputTooLongError,
    "invalid_model": InvalidModelError,
    "base_mismatch": ModelMismatchError,
    "prompt_not_finite": InvalidInputError,
    "idempotency_key_reused": InvalidInputError,
    "prompt_rows_exceeded": InvalidInputError,
    "output_not_finite": InvalidInputError,
    "invalid_scope": InvalidInputError,
    "invalid_pattern": InvalidInputError,
    "unauthenticated": UnauthenticatedError,
    "forbidden": ForbiddenError,
    "foreign_origin": ForbiddenError,
    "unknown_host": ForbiddenError,
    "tenant_suspended": ForbiddenError,
    "not_found": NotFoundError,
    "unknown_task": NotFoundError,
    "unknown_version": NotFoundError,
    "unknown_alias": NotFoundError,
    "unknown_calibration": NotFoundError,
    "unknown_ensemble": NotFoundError,
    "unknown_pack": NotFoundError,
    "unknown_file": NotFoundError,
    "unknown_job": NotFoundError,
    "unknown_tenant": NotFoundError,
    "unknown_key": NotFoundError,
    "unknown_grant": NotFoundError,
    "conflict": ConflictError,
    "file_in_use": ConflictError,
    "file_deleted": ConflictError,
    "job_over": ConflictError,
    "job_not_stopped": ConflictError,
    "lease_lost": ConflictError,
    "alias_moved": ConflictError,
    "tenant_exists": ConflictError,
    "too_many_keys": ConflictError,
    "key_over": ConflictError,
    "too_many_grants": ConflictError,
    "too_many_aliases": ConflictError,
    "too_large": TooLargeError,
    "quota_exceeded": QuotaExceededError,
    "too_many_jobs": QuotaExceededError,
    "limit_exceeded": QuotaExceededError,
    "too_many_unknown_keys": QuotaExceededError,
    "cancelled": CancelledError,
    "internal": InternalError,
    "store_unavailable": InternalError,
    "corrupt_blob": InternalError,
    "corrupt_file": InternalError,
    "prompt_unreadable": InternalError,
    "overloaded": OverloadedError,
    "not_ready": NotReadyError,
    "shutting_down": ShuttingDownError,
    "engine_dead": EngineDeadError,
    "deadline_exceeded": DeadlineExceededError,
}

BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidInputError,
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    405: InvalidInputError,
    422: InvalidInputError,
    429: QuotaExceededError,
    499: CancelledError,
    500: InternalError,
    503: OverloadedError,
    504: DeadlineExceededError,
}


def error_class(code: str, status: int | None = None) -> type[ApiError]:
    """The class for a code. A code that is unknown here gets the class of its status."""
    known = BY_CODE.get(code)
    if known is not None:
        return known
    return ApiError if status is None else BY_STATUS.get(status, ApiError)
