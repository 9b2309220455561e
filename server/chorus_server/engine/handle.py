"""A caller's handle on a request in the engine: its events, its outcome, and a way to cancel it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable

from chorus_server.engine.requests import FailedEvent, FinishedEvent, RequestEvent, ScoredEvent, TokensEvent
from chorus_server.errors import CancelledError, ChorusError, DeadlineExceededError


class RequestHandle:
    """One submitted request.

    Events may be read from one event loop (`async for`, `await result()`) or from one thread (`wait`). The
    engine's thread never blocks on a reader: events are kept until they are read. Exactly one last event
    comes: finished, scored or failed.
    """

    def __init__(self, request_id: str, on_cancel: Callable[[ChorusError], None]) -> None:
        self.request_id = request_id
        self._on_cancel: Callable[[ChorusError], None] | None = on_cancel
        self._lock = threading.Condition()
        self._events: deque[RequestEvent] = deque()
        self._outcome: FinishedEvent | ScoredEvent | FailedEvent | None = None
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def outcome(self) -> FinishedEvent | ScoredEvent | FailedEvent | None:
        """The last event, or None while the request is under way."""
        return self._outcome

    def cancel(self, reason: str = "the caller left") -> None:
        """Cancel the request; may be called from any thread. After the outcome or a first call it does
        nothing."""
        on_cancel = self._on_cancel
        if on_cancel is not None:
            on_cancel(CancelledError(f"The request was cancelled: {reason}."))

    def __aiter__(self) -> AsyncIterator[RequestEvent]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[RequestEvent]:
        while True:
            waiter: asyncio.Future[None] | None = None
            with self._lock:
                event = self._events.popleft() if self._events else None
                if event is None and self._outcome is not None:
                    return
                if event is None:
                    waiter = self._add_waiter()
            if waiter is not None:
                await waiter
            if event is not None:
                yield event
                if not isinstance(event, TokensEvent):
                    return

    async def result(self) -> FinishedEvent | ScoredEvent:
        """The outcome. Streamed tokens are skipped.

        Raises:
            ChorusError: what went wrong with this request.
        """
        while True:
            with self._lock:
                if self._outcome is not None:
                    return _or_raise(self._outcome)
                waiter = self._add_waiter()
            await waiter

    def wait(self, timeout_seconds: float | None = None) -> FinishedEvent | ScoredEvent:
        """`result` for a thread without an event loop.

        Raises:
            ChorusError: what went wrong with this request.
            DeadlineExceededError: there was no outcome within `timeout_seconds`; the request goes on.
        """
        with self._lock:
            self._lock.wait_for(lambda: self._outcome is not None, timeout_seconds)
            if self._outcome is None:
                raise DeadlineExceededError(
                    f"Request {self.request_id} had no outcome within {timeout_seconds} s."
                )
            return _or_raise(self._outcome)

    def push(self, event: TokensEvent) -> None:
        """Called by the engine with new tokens. After the outcome they are dropped."""
        with self._lock:
            if self._outcome is None:
                self._events.append(event)
                self._wake()

    def settle(self, event: FinishedEvent | ScoredEvent | FailedEvent, record: Callable[[], None]) -> bool:
        """Called by the engine with the outcome. If there already is one, returns False and changes nothing;
        otherwise runs `record` before it wakes the caller."""
        with self._lock:
            if self._outcome is not None:
                return False
            record()
            self._outcome = event
            self._on_cancel = (
                None  # it refers back to here: thousands of cycles a second would be left to the collector
            )
            self._events.append(event)
            self._wake()
            return True

    def _add_waiter(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append((loop, waiter))
        return waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            # Nobody waits on a closed loop; the code that closed it cancels its requests.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, waiter)
        self._lock.notify_all()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _or_raise(outcome: FinishedEvent | ScoredEvent | FailedEvent) -> FinishedEvent | ScoredEvent:
    if isinstance(outcome, FailedEvent):
        raise outcome.error
    return outcome
