"""The only code that does I/O with the server, once blocking and once awaiting; all decisions are made
elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import replace
from typing import TypeVar

import httpx

from chorus import answers
from chorus.errors import ChorusError
from chorus.following import Following
from chorus.http import Connection
from chorus.retries import Attempts, RetryBudget, RetryPolicy
from chorus.sse import EventDecoder
from chorus.types.events import StreamEvent
from chorus.types.tuning import JobEvent
from chorus.wire import Answer, Plan, Request

T = TypeVar("T")


class SyncTransport:
    """Sends requests and blocks until they are answered."""

    def __init__(
        self,
        http: httpx.Client,
        connection: Connection,
        policy: RetryPolicy,
        budget: RetryBudget,
        sleep: Callable[[float], None],
    ) -> None:
        self.http = http
        self._connection = connection
        self._policy = policy
        self.budget = budget
        self._sleep = sleep

    def run(self, plan: Plan[T]) -> T:
        """Carry out a call of one step or several."""
        steps = iter(plan)
        try:
            request = next(steps)
            while True:
                try:
                    answer = self._send(request)
                except ChorusError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _send(self, request: Request) -> Answer:
        response = self._open(request, stream=False)
        return answers.answer_of(response)

    def _open(self, request: Request, *, stream: bool, once: bool = False) -> httpx.Response:
        """An answer that is no error; with `stream`, its body is not read yet; with `once`, one attempt."""
        attempts = Attempts(replace(self._policy, retries=0) if once else self._policy, self.budget)
        while True:
            status: int | None = None
            try:
                response = self.http.send(self._connection.build(request), stream=stream)
                if answers.is_answer(request, response.status_code):
                    return response
                with contextlib.closing(response):
                    response.read()
                status, error = response.status_code, answers.error_of(answers.answer_of(response))
            except httpx.HTTPError as failure:
                error = answers.failure_of(failure, self._connection.base_url)
                error.__cause__ = failure
            self._sleep(attempts.pause_after(error, answers.may_repeat(request, error, status)))

    def events(self, request: Request) -> Generator[StreamEvent, None, None]:
        """Send a request whose answer is a stream of events."""
        with contextlib.closing(self._open(request, stream=True)) as response:
            decoder = EventDecoder()
            try:
                for chunk in response.iter_bytes():
                    yield from decoder.feed(chunk)
            except httpx.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url) from failure
            decoder.finish()

    def follow(self, following: Following) -> Generator[JobEvent, None, None]:
        """A followed job's events; comes back when the connection breaks."""
        while following.done is None:
            try:
                yield from self._follow_once(following)
            except ChorusError as error:
                self._sleep(following.pause_after(error))

    def _follow_once(self, following: Following) -> Generator[JobEvent, None, None]:
        with contextlib.closing(self._open(following.request(), stream=True, once=True)) as response:
            try:
                for chunk in response.iter_bytes():
                    yield from following.feed(chunk)
            except httpx.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url) from failure
            following.finish()

    def close(self) -> None:
        """Close every connection."""
        self.http.close()


class AsyncTransport:
    """Sends requests and awaits their answers."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        connection: Connection,
        policy: RetryPolicy,
        budget: RetryBudget,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.http = http
        self._connection = connection
        self._policy = policy
        self.budget = budget
        self._sleep = sleep

    async def run(self, plan: Plan[T]) -> T:
        """Carry out a call of one step or several."""
        steps = iter(plan)
        try:
            request = next(steps)
            while True:
                try:
                    answer = await self._send(request)
                except ChorusError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _send(self, request: Request) -> Answer:
        response = await self._open(request, stream=False)
        return answers.answer_of(response)

    async def _open(self, request: Request, *, stream: bool, once: bool = False) -> httpx.Response:
        """An answer that is no error; with `stream`, its body is not read yet; with `once`, one attempt."""
        attempts = Attempts(replace(self._policy, retries=0) if once else self._policy, self.budget)
        while True:
            status: int | None = None
            try:
                response = await self.http.send(self._connection.build(request), stream=stream)
                if answers.is_answer(request, response.status_code):
                    return response
                try:
                    await response.aread()
                finally:
                    await response.aclose()
                status, error = response.status_code, answers.error_of(answers.answer_of(response))
            except httpx.HTTPError as failure:
                error = answers.failure_of(failure, self._connection.base_url)
                error.__cause__ = failure
            await self._sleep(attempts.pause_after(error, answers.may_repeat(request, error, status)))

    async def events(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """Send a request whose answer is a stream of events."""
        response = await self._open(request, stream=True)
        try:
            decoder = EventDecoder()
            try:
                async for chunk in response.aiter_bytes():
                    for event in decoder.feed(chunk):
                        yield event
            except httpx.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url) from failure
            decoder.finish()
        finally:
            await response.aclose()

    async def follow(self, following: Following) -> AsyncGenerator[JobEvent, None]:
        """A followed job's events; comes back when the connection breaks."""
        while following.done is None:
            try:
                async with contextlib.aclosing(self._follow_once(following)) as events:
                    async for event in events:
                        yield event
            except ChorusError as error:
                await self._sleep(following.pause_after(error))

    async def _follow_once(self, following: Following) -> AsyncGenerator[JobEvent, None]:
        response = await self._open(following.request(), stream=True, once=True)
        try:
            try:
                async for chunk in response.aiter_bytes():
                    for event in following.feed(chunk):
                        yield event
            except httpx.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url) from failure
            following.finish()
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close every connection."""
        await self.http.aclose()
