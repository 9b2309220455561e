"""Streams of events, as callers get them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType
from typing import Self, TypeVar

from chorus.following import Following
from chorus.types.events import StreamEvent
from chorus.types.tuning import JobDone, JobEvent

E = TypeVar("E")


class _Events(Iterator[E]):
    """Events of one request, which is sent when the first event is read."""

    def __init__(self, events: Generator[E, None, None]) -> None:
        self._events = events

    def __next__(self) -> E:
        return next(self._events)

    def close(self) -> None:
        """Close the connection if events are still to come."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _AsyncEvents(AsyncIterator[E]):
    """Events of one request, which is sent when the first event is read."""

    def __init__(self, events: AsyncGenerator[E, None]) -> None:
        self._events = events

    async def __anext__(self) -> E:
        return await anext(self._events)

    async def close(self) -> None:
        """Close the connection if events are still to come."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class EventStream(_Events[StreamEvent]):
    """Events of one streamed request. The request is sent when you read the first event.

    Use it in a `with` block, or call `close`. Leaving early tells the server to stop.
    """


class AsyncEventStream(_AsyncEvents[StreamEvent]):
    """Events of one streamed request. The request is sent when you read the first event.

    Use it in an `async with` block, or await `close`. Leaving early tells the server to stop.
    """


class JobEventStream(_Events[JobEvent]):
    """Events of one followed job, until it is over. Leaving early does not affect the job."""

    def __init__(self, events: Generator[JobEvent, None, None], following: Following) -> None:
        super().__init__(events)
        self._following = following

    @property
    def done(self) -> JobDone | None:
        """How the job ended, once every event has been read."""
        return self._following.done


class AsyncJobEventStream(_AsyncEvents[JobEvent]):
    """Events of one followed job, until it is over. Leaving early does not affect the job."""

    def __init__(self, events: AsyncGenerator[JobEvent, None], following: Following) -> None:
        super().__init__(events)
        self._following = following

    @property
    def done(self) -> JobDone | None:
        """How the job ended, once every event has been read."""
        return self._following.done
