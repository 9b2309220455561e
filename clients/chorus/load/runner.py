"""Sends a schedule's requests and records what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from chorus.client import AsyncClient
from chorus.errors import ChorusError, InvalidArgumentError
from chorus.load.outcomes import Outcome, Recorder, code_of
from chorus.load.schedule import Shot, schedule
from chorus.load.spec import LoadSpec
from chorus.types import DoneEvent, ErrorEvent, ResultEvent, TokenEvent

Clock = Callable[[], float]


async def run_load(client: AsyncClient, spec: LoadSpec, recorder: Recorder) -> None:
    """Run a load to its end: send the schedule, then wait up to `spec.drain_seconds` for answers.

    Latency of open arrivals counts from the moment when they were due, so that a server that stalls cannot
    hide the cost. `recorder` is filled during the run and is complete when this returns.
    """
    run = _Run(client, spec, recorder)
    await (run.open_loop() if spec.arrivals == "open" else run.closed_loop())


class _Run:
    def __init__(self, client: AsyncClient, spec: LoadSpec, recorder: Recorder) -> None:
        self._client = client
        self._spec = spec
        self._recorder = recorder
        self._clock: Clock = asyncio.get_running_loop().time
        self._start = self._clock()
        self._room = asyncio.Semaphore(spec.concurrency)
        self._defects: list[BaseException] = []

    async def open_loop(self) -> None:
        pending: set[asyncio.Task[None]] = set()
        try:
            shots = schedule(self._spec)
            for shot in shots:
                await asyncio.sleep(max(0.0, self._start + shot.at_seconds - self._clock()))
                if not await self._find_room() or self._defects:
                    self._recorder.unsent = 1 + sum(1 for _ in shots)
                    break
                task = asyncio.create_task(self._shoot(shot, self._start + shot.at_seconds))
                pending.add(task)
                task.add_done_callback(pending.discard)
                task.add_done_callback(self._ended)
            await self._drain(set(pending))
        finally:
            for task in pending:
                task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._room.release()
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._defects.append(defect)

    async def _find_room(self) -> bool:
        """Wait for a connection for the next request. False if the run ends before there is one."""
        if not self._room.locked():
            return await self._room.acquire()
        self._recorder.late += 1
        left = self._start + self._spec.duration_seconds + self._spec.drain_seconds - self._clock()
        try:
            async with asyncio.timeout(left):
                return await self._room.acquire()
        except TimeoutError:
            return False

    async def closed_loop(self) -> None:
        shots = schedule(self._spec)
        workers = {asyncio.create_task(self._worker(shots)) for _ in range(self._spec.concurrency)}
        try:
            await asyncio.wait(workers, timeout=self._spec.duration_seconds)
            await self._drain(workers)
        finally:
            for worker in workers:
                worker.cancel()

    async def _worker(self, shots: Iterator[Shot]) -> None:
        for shot in shots:
            if self._clock() - self._start >= self._spec.duration_seconds:
                return
            await self._shoot(shot, self._clock())

    async def _drain(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for the last answers. Requests without an answer by then are cancelled. A defect in a task is
        raised here.
        """
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=self._spec.drain_seconds)
            for task in left:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self._defects += [defect for defect in ended if isinstance(defect, Exception)]
        if self._defects:
            raise self._defects[0]

    async def _shoot(self, shot: Shot, due: float) -> None:
        recorder = self._recorder
        recorder.sent += 1
        recorder.in_flight += 1
        first: float | None = None
        code: str | None = "unfinished"
        tokens = 0
        try:
            if self._spec.route == "stream":
                first, tokens, code = await self._stream(shot)
            else:
                tokens, code = await self._ask(shot)
        except InvalidArgumentError:
            raise  # nothing was sent: the run itself is faulty
        except ChorusError as error:
            code = code_of(error)
        finally:
            now = self._clock()
            recorder.in_flight -= 1
            first_seconds = None if first is None else first - due
            recorder.add(Outcome(now - due, code, first_seconds, tokens), now - self._start)

    async def _ask(self, shot: Shot) -> tuple[int, str | None]:
        settings: dict[str, Any] = dict(self._spec.settings)
        if self._spec.route == "classify":
            labelled = await self._client.classify(shot.task, input=shot.input, **settings)
            return sum(item.usage.output_tokens for item in labelled.values), None
        generated = await self._client.generate(shot.task, input=shot.input, **settings)
        return sum(item.usage.output_tokens for item in generated.values), None

    async def _stream(self, shot: Shot) -> tuple[float | None, int, str | None]:
        first: float | None = None
        tokens = 0
        code: str | None = None
        async with self._client.stream(shot.task, input=shot.input, **self._spec.settings) as events:
            async for event in events:
                match event:
                    case TokenEvent():
                        first = self._clock() if first is None else first
                    case ResultEvent():
                        tokens += event.result.usage.output_tokens
                    case ErrorEvent():
                        code = event.error.code
                    case DoneEvent():
                        pass
        return first, tokens, code
