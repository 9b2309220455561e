"""The engine in this process, called directly: one model, programs compiled once, engines over them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from workload import Request

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.executor import JaxExecutor, compile_all, model_spec, programs
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.plans import Ladder, StepPlan, StepResult
from chorus_server.engine.protocols import HostPrompts, PendingStep, PromptSource
from chorus_server.engine.requests import FinishedEvent, GenerateRequest, Origin, PromptHandle
from chorus_server.engine.sampling import Sampling
from chorus_server.engine.thread.engine import Engine
from chorus_server.model.checkpoints import load_model
from chorus_server.model.fused_attention import choose_attention

Handle = Callable[[int], PromptHandle]
"""From the number of a task to its prompt."""


class MadePrompts:
    """A `PromptSource` whose digests are `LENGTH#NUMBER`; values have the spread of a tuned prompt's."""

    def __init__(self, width: int) -> None:
        self._width = width

    def fetch(self, digest: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        length, number = (int(part) for part in digest.split("#"))
        return np.random.default_rng(number).normal(0, 5, (length, self._width)).astype(np.float32)


class View:
    """The executor, with fewer rows for those who look through it; notes when steps were under way."""

    def __init__(self, executor: JaxExecutor, rows: int) -> None:
        self.executor, self._rows = executor, rows
        self._begun: deque[float] = deque()
        self.intervals: list[tuple[float, float]] = []

    @property
    def ladder(self) -> Ladder:
        return self.executor.ladder

    @property
    def prompt_row_capacity(self) -> int:
        return self._rows

    @property
    def padded_vocab_size(self) -> int:
        return self.executor.padded_vocab_size

    def dispatch(self, plan: StepPlan) -> PendingStep:
        self._begun.append(time.perf_counter())
        return self.executor.dispatch(plan)

    def collect(self, pending: PendingStep) -> StepResult:
        result = self.executor.collect(pending)
        self.intervals.append((self._begun.popleft(), time.perf_counter()))
        return result

    def busy_seconds(self) -> float:
        """Length of the union of the intervals from dispatch to read."""
        total, until = 0.0, float("-inf")
        for begin, end in self.intervals:
            total += max(0.0, end - max(begin, until))
            until = max(until, end)
        return total


@dataclass(frozen=True)
class Running:
    """An engine that takes requests; `plans` is every step plan since it was last cleared."""

    engine: Engine
    view: View
    handle: Handle
    plans: list[StepPlan]

    def burst(self, requests: Sequence[Request]) -> float:
        """Seconds until all are answered, handed in at once."""
        started = time.perf_counter()
        asyncio.run(self._all(requests))
        return time.perf_counter() - started

    def closed(self, requests: Sequence[Request], concurrency: int) -> tuple[float, list[float]]:
        """Seconds in all and of each request, so many in flight at any time."""
        seconds: list[float] = []
        started = time.perf_counter()
        asyncio.run(self._closed(deque(enumerate(requests)), concurrency, seconds))
        return time.perf_counter() - started, seconds

    async def _all(self, requests: Sequence[Request]) -> None:
        handles = [self.engine.submit(self.request(n, request)) for n, request in enumerate(requests)]
        for handle, request in zip(handles, requests, strict=True):
            _check(await handle.result(), request)

    async def _closed(
        self, waiting: deque[tuple[int, Request]], concurrency: int, seconds: list[float]
    ) -> None:
        async def work() -> None:
            while waiting:
                number, request = waiting.popleft()
                begun = time.perf_counter()
                _check(await self.engine.submit(self.request(number, request)).result(), request)
                seconds.append(time.perf_counter() - begun)

        await asyncio.gather(*(work() for _ in range(concurrency)))

    def request(self, number: int, request: Request) -> GenerateRequest:
        """As the engine takes it: exactly `new_tokens` tokens."""
        count = request.new_tokens
        return GenerateRequest(
            Origin(f"{number}", task=f"task{request.task}"),
            (self.handle(request.task), tuple(request.ids)),
            Sampling(max_new_tokens=count, min_new_tokens=count),
        )


class Direct:
    """A loaded model and its compiled programs; each engine gets a prompt table and blocks of its own.

    Args:
        prompt_rows: of each table.
        ladder: settings of the ladder that differ from the server's defaults.
    """

    def __init__(self, model: Path, prompt_rows: int, ladder: dict[str, Any]) -> None:
        loaded = load_model(str(model), layout="unrolled", dtype="float32")
        served = loaded.model.with_attention(choose_attention("auto", "float32")[0])
        self.ladder = build_ladder(**ladder)
        self.rows, self.config = prompt_rows, loaded.model.config
        self._spec = model_spec(served, prompt_rows)
        self._compiled = compile_all(programs(self._spec, self.ladder))

    def made(self, length: int) -> Handle:
        """Prompts of a length that come from nowhere: for `MadePrompts`."""
        return lambda task: PromptHandle(f"{length}#{task}", length)

    def executor(self, host: HostPrompts) -> JaxExecutor:
        """A table and blocks over the compiled programs."""
        vocab, start = self.config.padded_vocab_size, self.config.decoder_start_id
        return JaxExecutor(self._spec, self.ladder, self._compiled, host, vocab, start)

    @contextmanager
    def engine(
        self,
        handle: Handle,
        *,
        source: PromptSource | None = None,
        rows: int | None = None,
        host_bytes: int = 4 << 30,
    ) -> Iterator[Running]:
        """An engine that takes requests until the block ends.

        Args:
            source: of prompt values; `MadePrompts` when not given.
            rows: of the table that it may use; all when not given.
        """
        tier = HostPromptTier(host_bytes, "float32")
        view, plans = View(self.executor(tier), rows or self.rows), list[StepPlan]()
        engine = Engine(
            view,
            source or MadePrompts(self.config.d_model),
            config=EngineConfig(max_queued_requests=1 << 20, host_prompt_bytes=host_bytes),
            detokenise=lambda ids: "",
            host_prompts=tier,
            recorder=plans.append,
        )
        engine.start()
        try:
            yield Running(engine, view, handle, plans)
        finally:
            engine.stop()


def replay(executor: JaxExecutor, plans: Sequence[StepPlan]) -> float:
    """Seconds of the bare step plans, two in flight and no scheduler. The engine that owns the executor must
    be idle, and the plans' prompts on the device."""
    in_flight: deque[PendingStep] = deque()
    started = time.perf_counter()
    for plan in plans:
        if len(in_flight) == 2:
            executor.collect(in_flight.popleft())
        in_flight.append(executor.dispatch(plan))
    while in_flight:
        executor.collect(in_flight.popleft())
    return time.perf_counter() - started


def _check(event: object, request: Request) -> None:
    if not isinstance(event, FinishedEvent) or len(event.sequences[0].tokens) != request.new_tokens:
        raise RuntimeError(f"a request got other than its {request.new_tokens} tokens: {event}")
