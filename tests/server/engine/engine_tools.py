"""Shared by the engine's tests: a clock in our hands, a source of prompts, an engine on the fake executor."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import FakeExecutor
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.requests import GenerateRequest, InputPart, Origin, PromptHandle, ScoreRequest
from chorus_server.engine.sampling import Sampling
from chorus_server.engine.thread.engine import Engine
from chorus_server.errors import NotFoundError

_ids = count()


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class DictSource:
    """Prompts in memory. `gate`, when set, is waited for in every fetch; digests in `broken` fail."""

    def __init__(self, width: int = 3) -> None:
        self.width = width
        self.lengths: dict[str, int] = {}
        self.values: dict[str, np.ndarray[Any, Any]] = {}
        self.broken: dict[str, Exception] = {}
        self.gate: threading.Event | None = None
        self.fetched: list[str] = []
        self.fetching = threading.Semaphore(0)

    def add(self, digest: str, length: int) -> PromptHandle:
        self.lengths[digest] = length
        return PromptHandle(digest, length)

    def fetch(self, digest: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.fetched.append(digest)
        self.fetching.release()
        if self.gate is not None:
            assert self.gate.wait(300), "the test never opened the gate"
        if digest in self.broken:
            raise self.broken[digest]
        if digest in self.values:
            return self.values[digest]
        if digest not in self.lengths:
            raise NotFoundError(f"no prompt {digest}")
        return np.ones((self.lengths[digest], self.width), np.float32)


def words(tokens: Sequence[int]) -> str:
    """A detokeniser to reckon with: `<3><14>`."""
    return "".join(f"<{token}>" for token in tokens)


def origin(tenant: str = "a", **rest: Any) -> Origin:
    return Origin(f"r{next(_ids)}", tenant, **rest)


def generate(*parts: InputPart, tenant: str = "a", stream: bool = False, **settings: Any) -> GenerateRequest:
    of_origin = {
        name: settings.pop(name)
        for name in ("task", "weight", "priority", "deadline_seconds")
        if name in settings
    }
    return GenerateRequest(origin(tenant, **of_origin), parts or ((5, 6, 1),), Sampling(**settings), stream)


def score(
    *parts: InputPart, targets: Sequence[Sequence[int]], tenant: str = "a", **rest: Any
) -> ScoreRequest:
    return ScoreRequest(origin(tenant, **rest), parts or ((5, 6, 1),), tuple(tuple(t) for t in targets))


@contextmanager
def running_engine(
    *,
    config: EngineConfig | None = None,
    source: DictSource | None = None,
    fake: dict[str, Any] | None = None,
    may_die: bool = False,
    **rest: Any,
) -> Iterator[tuple[Engine, FakeExecutor]]:
    """A started engine on a `FakeExecutor`; stopped afterwards. It must not have died, unless it may."""
    config = config or EngineConfig(check_integrity=True)
    host = HostPromptTier(config.host_prompt_bytes, config.compute_dtype)
    executor = FakeExecutor(host, **(fake or {}))
    engine = Engine(executor, source or DictSource(), config=config, detokenise=words, **rest)
    engine.start()
    try:
        yield engine, executor
    finally:
        engine.stop()
    assert may_die or engine.dead is None, engine.dead
