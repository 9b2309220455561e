"""Streams of events as the caller holds them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from types import TracebackType

from chorus.types.events import StreamEvent


class EventStream(Iterator[StreamEvent]):
    """Events of one streamed request. The request is sent when the first is read.

    Use it in a `with` block, or call `close`: leaving early tells the server to stop.
    """

    def __init__(self, events: Generator[StreamEvent, None, None]) -> None:
        self._events = events

    def __next__(self) -> StreamEvent:
        return next(self._events)

    def close(self) -> None:
        """Close the connection if events are still to come."""
        self._events.close()

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncEventStream(AsyncIterator[StreamEvent]):
    """Events of one streamed request. The request is sent when the first is read.

    Use it in an `async with` block, or await `close`: leaving early tells the server to stop.
    """

    def __init__(self, events: AsyncGenerator[StreamEvent, None]) -> None:
        self._events = events

    async def __anext__(self) -> StreamEvent:
        return await anext(self._events)

    async def close(self) -> None:
        """Close the connection if events are still to come."""
        await self._events.aclose()

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
