"""The only code that does I/O with the server, once blocking and once awaiting. All decisions are made
elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import replace
from typing import BinaryIO, TypeVar

import httpx2

from chorus import answers
from chorus.errors import ChorusError
from chorus.following import Following
from chorus.http import Connection
from chorus.limits import Deadline, awaited, check_encoding, check_length, check_size, timed, watch
from chorus.retries import Attempts, Clock, RetryBudget, RetryPolicy
from chorus.sse import EventDecoder
from chorus.types.events import StreamEvent
from chorus.types.tuning import JobEvent
from chorus.wire import Answer, Plan, Request

T = TypeVar("T")


class SyncTransport:
    """Sends requests and blocks until they are answered."""

    def __init__(
        self,
        http: httpx2.Client,
        connection: Connection,
        policy: RetryPolicy,
        budget: RetryBudget,
        sleep: Callable[[float], None],
        clock: Clock,
    ) -> None:
        watch(http)
        self.http = http
        self._connection = connection
        self._policy = policy
        self.budget = budget
        self._sleep = sleep
        self._clock = clock

    def run(self, plan: Plan[T]) -> T:
        """Carry out a call of one or several steps, all before one deadline."""
        steps, deadline = iter(plan), self._deadline()
        try:
            request = next(steps)
            while True:
                try:
                    answer = self._repeat(request, deadline, lambda response: self._read(response, deadline))
                except ChorusError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _deadline(self) -> Deadline:
        return Deadline(self._connection.total_seconds, self._clock)

    def _repeat(
        self,
        request: Request,
        deadline: Deadline,
        take: Callable[[httpx2.Response], T],
        *,
        once: bool = False,
    ) -> T:
        """What `take` makes of a successful answer, whose body was not read before. With `once`, there is one
        attempt."""
        attempts = Attempts(replace(self._policy, retries=0) if once else self._policy, self.budget)
        while True:
            status: int | None = None
            try:
                with timed(deadline):
                    response = self.http.send(self._connection.build(request, deadline), stream=True)
                if answers.is_answer(request, response.status_code):
                    return take(response)
                status, error = response.status_code, answers.error_of(self._read(response, deadline))
            except httpx2.HTTPError as failure:
                error = answers.failure_of(failure, self._connection.base_url, deadline)
                error.__cause__ = failure
            again = answers.may_repeat(request, error, status, self._policy)
            self._sleep(attempts.pause_after(error, again, deadline.left()))

    def _read(self, response: httpx2.Response, deadline: Deadline) -> Answer:
        most, body = self._connection.max_answer_bytes, bytearray()
        with contextlib.closing(response):
            check_length(response, most)
            for chunk in self._chunks(response, deadline):
                check_size(len(body) + len(chunk), most)
                body += chunk
        return Answer(response.status_code, response.headers, bytes(body))

    def _chunks(self, response: httpx2.Response, deadline: Deadline) -> Generator[bytes, None, None]:
        check_encoding(response)
        chunks = response.iter_bytes()
        while True:
            with timed(deadline):
                chunk = next(chunks, None)
            if chunk is None:
                return
            deadline.check()
            yield chunk

    def download(self, request: Request, file: BinaryIO) -> None:
        """Write an answer of any size into a file, from its start each time it is tried. It has as long as
        bytes keep coming."""
        deadline = self._deadline()

        def take(response: httpx2.Response) -> None:
            file.seek(0)
            file.truncate()
            with contextlib.closing(response):
                for chunk in self._chunks(response, deadline):
                    file.write(chunk)
                    deadline.restart()

        self._repeat(request, deadline, take)

    def pieces(self, request: Request) -> Generator[bytes, None, None]:
        """An answer of any size, as it comes. It has as long as bytes keep coming."""
        deadline = self._deadline()
        with contextlib.closing(self._repeat(request, deadline, lambda response: response)) as response:
            try:
                for chunk in self._chunks(response, deadline):
                    yield chunk
                    deadline.restart()
            except httpx2.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url, deadline) from failure

    def events(self, request: Request) -> Generator[StreamEvent, None, None]:
        """Send a request whose answer is a stream of events. Each event has a deadline of its own."""
        deadline = self._deadline()
        with contextlib.closing(self._repeat(request, deadline, lambda response: response)) as response:
            decoder = EventDecoder(self._connection.max_answer_bytes)
            try:
                for chunk in self._chunks(response, deadline):
                    for event in decoder.feed(chunk):
                        yield event
                        deadline.restart()
            except httpx2.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url, deadline) from failure
            decoder.finish()

    def follow(self, following: Following) -> Generator[JobEvent, None, None]:
        """A followed job's events. Reconnects if the connection breaks."""
        following.max_event_bytes = self._connection.max_answer_bytes
        while following.done is None:
            try:
                yield from self._follow_once(following)
            except ChorusError as error:
                self._sleep(following.pause_after(error))

    def _follow_once(self, following: Following) -> Generator[JobEvent, None, None]:
        request, deadline = following.request(), self._deadline()
        with contextlib.closing(
            self._repeat(request, deadline, lambda response: response, once=True)
        ) as response:
            try:
                for chunk in self._chunks(response, deadline):
                    for event in following.feed(chunk):
                        yield event
                        deadline.restart()
                    if following.lives(chunk):
                        deadline.restart()
            except httpx2.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url, deadline) from failure
            following.finish()

    def close(self) -> None:
        """Close every connection."""
        self.http.close()


class AsyncTransport:
    """Sends requests and awaits their answers."""

    def __init__(
        self,
        http: httpx2.AsyncClient,
        connection: Connection,
        policy: RetryPolicy,
        budget: RetryBudget,
        sleep: Callable[[float], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self.http = http
        self._connection = connection
        self._policy = policy
        self.budget = budget
        self._sleep = sleep
        self._clock = clock

    async def run(self, plan: Plan[T]) -> T:
        """Carry out a call of one or several steps, all before one deadline."""
        steps, deadline = iter(plan), self._deadline()
        try:
            request = next(steps)
            while True:
                try:
                    answer = await self._repeat(
                        request, deadline, lambda response: self._read(response, deadline)
                    )
                except ChorusError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _deadline(self) -> Deadline:
        return Deadline(self._connection.total_seconds, self._clock)

    async def _repeat(
        self,
        request: Request,
        deadline: Deadline,
        take: Callable[[httpx2.Response], Awaitable[T]],
        *,
        once: bool = False,
    ) -> T:
        """What `take` makes of a successful answer, whose body was not read before. With `once`, there is one
        attempt."""
        attempts = Attempts(replace(self._policy, retries=0) if once else self._policy, self.budget)
        while True:
            status: int | None = None
            try:
                async with awaited(deadline):
                    response = await self.http.send(self._connection.build(request, deadline), stream=True)
                    if answers.is_answer(request, response.status_code):
                        return await take(response)
                    status, whole = response.status_code, await self._read(response, deadline)
                error = answers.error_of(whole)
            except httpx2.HTTPError as failure:
                error = answers.failure_of(failure, self._connection.base_url, deadline)
                error.__cause__ = failure
            again = answers.may_repeat(request, error, status, self._policy)
            await self._sleep(attempts.pause_after(error, again, deadline.left()))

    async def _open(self, request: Request, deadline: Deadline, *, once: bool = False) -> httpx2.Response:
        async def unread(response: httpx2.Response) -> httpx2.Response:
            return response

        return await self._repeat(request, deadline, unread, once=once)

    async def _read(self, response: httpx2.Response, deadline: Deadline) -> Answer:
        most, body = self._connection.max_answer_bytes, bytearray()
        async with contextlib.aclosing(response):
            check_encoding(response)
            check_length(response, most)
            async for chunk in response.aiter_bytes():
                deadline.check()
                check_size(len(body) + len(chunk), most)
                body += chunk
        return Answer(response.status_code, response.headers, bytes(body))

    async def _chunks(self, response: httpx2.Response, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        check_encoding(response)
        chunks = response.aiter_bytes()
        while True:
            async with awaited(deadline):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            deadline.check()
            yield chunk

    async def pieces(self, request: Request) -> AsyncGenerator[bytes, None]:
        """An answer of any size, as it comes. It has as long as bytes keep coming."""
        async with contextlib.aclosing(await self._open(request, deadline := self._deadline())) as response:
            try:
                async for chunk in self._chunks(response, deadline):
                    yield chunk
                    deadline.restart()
            except httpx2.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url, deadline) from failure

    async def download(self, request: Request, file: BinaryIO) -> None:
        """Write an answer of any size into a file. It has as long as bytes keep coming."""
        async with contextlib.aclosing(self.pieces(request)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)

    async def events(self, request: Request) -> AsyncGenerator[StreamEvent, None]:
        """Send a request whose answer is a stream of events. Each event has a deadline of its own."""
        deadline = self._deadline()
        async with contextlib.aclosing(await self._open(request, deadline)) as response:
            decoder = EventDecoder(self._connection.max_answer_bytes)
            try:
                async for chunk in self._chunks(response, deadline):
                    for event in decoder.feed(chunk):
                        yield event
                        deadline.restart()
            except httpx2.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url, deadline) from failure
            decoder.finish()

    async def follow(self, following: Following) -> AsyncGenerator[JobEvent, None]:
        """A followed job's events. Reconnects if the connection breaks."""
        following.max_event_bytes = self._connection.max_answer_bytes
        while following.done is None:
            try:
                async with contextlib.aclosing(self._follow_once(following)) as events:
                    async for event in events:
                        yield event
            except ChorusError as error:
                await self._sleep(following.pause_after(error))

    async def _follow_once(self, following: Following) -> AsyncGenerator[JobEvent, None]:
        request, deadline = following.request(), self._deadline()
        async with contextlib.aclosing(await self._open(request, deadline, once=True)) as response:
            try:
                async for chunk in self._chunks(response, deadline):
                    for event in following.feed(chunk):
                        yield event
                        deadline.restart()
                    if following.lives(chunk):
                        deadline.restart()
            except httpx2.HTTPError as failure:
                raise answers.failure_of(failure, self._connection.base_url, deadline) from failure
            following.finish()

    async def close(self) -> None:
        """Close every connection."""
        await self.http.aclose()
