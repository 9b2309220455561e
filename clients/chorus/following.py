"""Follows a job whatever the connection does: knows which event was last, and when to reconnect.

It decides but does no I/O. Both transports ask it for the next request, feed it what arrives, and tell it
what went wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from chorus.errors import (
    ApiError,
    CallTimeoutError,
    ChorusError,
    ConnectionFailedError,
    ConnectionLostError,
    UnexpectedAnswerError,
)
from chorus.sse import RawDecoder, RawEvent
from chorus.types.base import ErrorDetail, Wire
from chorus.types.tuning import JobDone, JobEvent
from chorus.wire import Request, query_of

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0
_COMMENT = b":"
_PASSING_STATUSES = frozenset({429, 500, 503})


class _Told(Wire):
    """The data of an `error` event."""

    error: ErrorDetail


class Following:
    """One followed job.

    Args:
        path: the path of the job's events.
        after: number of the last event that the caller has.
        patience_seconds: how long the server may stay away: the sum of waits in a row without an event or a
            comment in between.

    Attributes:
        done: whether the last event was seen.
        max_event_bytes: limit of one event; None means no limit.
    """

    def __init__(
        self,
        path: str,
        after: int = 0,
        patience_seconds: float = 300.0,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._path = path
        self._after = after
        self._patience = patience_seconds
        self._uniform = uniform
        self._waited = 0.0
        self._failures = 0
        self.max_event_bytes: int | None = None
        self._raw = RawDecoder(None)
        self.done: JobDone | None = None

    def request(self) -> Request:
        """The request that continues after the last event."""
        self._raw = RawDecoder(self.max_event_bytes)
        return Request("GET", self._path, query_of(after=self._after or None), repeatable=True)

    def feed(self, chunk: bytes) -> Iterator[JobEvent]:
        """The events that `chunk` completes. Each is returned once, even if the server sends it again.

        Raises:
            UnexpectedAnswerError: an event does not come from Chorus.
            ApiError: the server could not continue.
        """
        if self.lives(chunk):
            self._waited, self._failures = 0.0, 0
        for raw in self._raw.feed(chunk):
            event = self._typed(raw)
            if event is not None and event.seq > self._after:
                self._after = event.seq
                self._waited, self._failures = 0.0, 0
                yield event

    def lives(self, chunk: bytes) -> bool:
        """Whether a chunk only shows that the server is alive."""
        return chunk.startswith(_COMMENT)

    def finish(self) -> None:
        """The stream ended. Raises ConnectionLostError if `done` has not come."""
        if self.done is None:
            raise ConnectionLostError("The stream of events was cut off; the job itself goes on.")

    def pause_after(self, error: ChorusError) -> float:
        """Seconds to wait before reconnecting.

        Raises:
            ChorusError: `error` itself, if reconnecting cannot help or patience is used up.
        """
        if not _passes(error):
            raise error
        backoff = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self._failures, 10))
        asked = error.retry_after_seconds if isinstance(error, ApiError) else None
        wait = max(asked or 0.0, (0.5 + 0.5 * self._uniform()) * backoff)
        if self._waited + wait > self._patience:
            raise error
        self._waited += wait
        self._failures += 1
        return wait

    def _typed(self, raw: RawEvent) -> JobEvent | None:
        try:
            if raw.name == "done":
                self.done = JobDone.model_validate_json(raw.data)
                return None
            if raw.name == "error":
                raise _Told.model_validate_json(raw.data).error.as_error(status=503)
            return JobEvent.model_validate_json(raw.data)
        except ValidationError as error:
            raise UnexpectedAnswerError(f"A {raw.name!r} event of the job cannot be read.") from error


def _passes(error: ChorusError) -> bool:
    if isinstance(error, ApiError):
        return error.status in _PASSING_STATUSES
    return isinstance(error, (ConnectionFailedError, ConnectionLostError, CallTimeoutError))
