"""Client of a Chorus server: `from chorus import Client`.

Needs neither JAX nor numpy, and nothing of the server.
"""

from chorus.client import AsyncClient, Client
from chorus.errors import (
    ApiError,
    CallTimeoutError,
    CancelledError,
    ChorusError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    EngineDeadError,
    ForbiddenError,
    InputTooLongError,
    InternalError,
    InvalidArgumentError,
    InvalidInputError,
    InvalidModelError,
    ModelMismatchError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    QuotaExceededError,
    TooLargeError,
    UnauthenticatedError,
    UnexpectedAnswerError,
)
from chorus.retries import CallStatistics, RetryPolicy
from chorus.streams import AsyncEventStream, EventStream
from chorus.types import DoneEvent, ErrorEvent, FailedItem, ResultEvent, StreamEvent, TokenEvent

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncEventStream",
    "CallStatistics",
    "CallTimeoutError",
    "CancelledError",
    "ChorusError",
    "Client",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "DoneEvent",
    "EngineDeadError",
    "ErrorEvent",
    "EventStream",
    "FailedItem",
    "ForbiddenError",
    "InputTooLongError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidInputError",
    "InvalidModelError",
    "ModelMismatchError",
    "NotFoundError",
    "NotReadyError",
    "OverloadedError",
    "QuotaExceededError",
    "ResultEvent",
    "RetryPolicy",
    "StreamEvent",
    "TokenEvent",
    "TooLargeError",
    "UnauthenticatedError",
    "UnexpectedAnswerError",
]
