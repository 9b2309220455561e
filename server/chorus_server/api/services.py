"""Everything that routes use, in one container on `app.state`.

It is built in `server/chorus_server/app.py` or by a test, and is never global.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from fastapi import Request

from chorus_server.api.http.bodies import BodyBudget, BodyShare
from chorus_server.api.http.context import context_of
from chorus_server.api.http.offload import Offload
from chorus_server.api.http.traces import Traces
from chorus_server.api.last_hour import LastHour
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.lifecycle import Lifecycle
from chorus_server.api.metrics import Metrics
from chorus_server.api.upkeep import Upkeep
from chorus_server.changes.reader import ChangeReader
from chorus_server.engine.limits import Limits
from chorus_server.engine.stats import EngineStats
from chorus_server.engine.thread.engine import Engine
from chorus_server.jobs.feeds import JobFeeds
from chorus_server.jobs.runner import JobRunner
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.settings import Settings
from chorus_server.tenancy.budgets import Budgets
from chorus_server.tenancy.callers import Callers
from chorus_server.tenancy.sessions import Sessions
from chorus_server.tenancy.usage import UsageRecorder
from prompts_store.jobs.records import KINDS
from prompts_store.records import Actor
from prompts_store.store import PromptStore

P = ParamSpec("P")
T = TypeVar("T")

if TYPE_CHECKING:  # these import JAX, and the routes are up before that
    from chorus_server.engine.executor import CompileWatch
    from chorus_server.engine.memory_plan import MemoryPlan
    from chorus_server.tuning.jobs.worker.service import TuningService


@dataclass(frozen=True, slots=True)
class BaseModelInfo:
    """The frozen model, as `GET /v1/model` describes it.

    Attributes:
        embeddings: reads the `[V, D]` embedding table, without padding rows, to host memory, in the type
            that the model computes in. It is slow and runs off the event loop.
    """

    name: str
    fingerprint: str
    vocabulary_digest: str
    config: Mapping[str, Any]
    parameters: int
    width: int
    compute_dtype: str
    matrix_dtype: str
    system_fingerprint: str
    layout: str
    prompt_rows: int
    embeddings: Callable[[], np.ndarray[Any, Any]]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the device's prompt table."""
        return self.width * (2 if self.compute_dtype == "bfloat16" else 4)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What compiling cost.

    Attributes:
        programs: how many were compiled.
        from_cache: how many of them came from the compile cache.
        seconds: until the last one was ready.
    """

    programs: int
    from_cache: int
    seconds: float

    def __str__(self) -> str:
        cached = f", {self.from_cache} of them from the compile cache" if self.from_cache else ""
        return f"{self.programs} programs in {self.seconds:.1f} s{cached}"


@dataclass(frozen=True, slots=True)
class DeviceStart:
    """How the device was made ready.

    Attributes:
        watch: sees what is compiled, then and later.
    """

    plan: MemoryPlan
    compiled: Compiled
    watch: CompileWatch


@dataclass(frozen=True, slots=True)
class Serving:
    """What exists once the programs are compiled.

    Attributes:
        start: None for an engine without a device.
    """

    engine: Engine
    vocabulary: Vocabulary
    base: BaseModelInfo
    limits: Limits
    start: DeviceStart | None = None


@dataclass(slots=True)
class Services:
    """What a request may use.

    Attributes:
        callers: who asks.
        sessions: who is signed in to the console.
        changes: what other processes changed.
        serving: None until the model is loaded and its programs compiled.
        text: threads for tokenising long texts, for neighbours, for `/metrics` and for the console's files.
        metrics: what `/metrics` shows.
        feeds: the tuning jobs that callers follow.
        usage: takes what came of each item.
        budgets: what each may still use.
        upkeep: collects what nothing needs any more.
        tuning: runs tuning jobs in this process; None until the engine runs, or if workers run them.
        engine_jobs: run jobs whose work is requests to the engine; none until the engine runs.
        traces: takes the spans of requests; None if nothing is recorded.
        loop: the event loop that serves; None before it does.
        bodies: memory for request bodies: four times the largest body that the settings allow.
        hour: what this process did in the last hour.
    """

    settings: Settings
    callers: Callers
    sessions: Sessions
    library: PromptLibrary
    lifecycle: Lifecycle
    text: Offload
    metrics: Metrics
    feeds: JobFeeds
    changes: ChangeReader
    usage: UsageRecorder
    budgets: Budgets
    upkeep: Upkeep
    serving: Serving | None = None
    tuning: TuningService | None = None
    engine_jobs: tuple[JobRunner, ...] = ()
    traces: Traces | None = None
    loop: asyncio.AbstractEventLoop | None = None
    bodies: BodyBudget = field(init=False)
    hour: LastHour = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = BodyBudget(4 * max(self.settings.max_body_bytes, self.settings.max_upload_bytes))
        self.hour = LastHour(self.metrics, self._stats)
        metrics = self.metrics.api
        metrics.ready.watch(lambda: self.lifecycle.phase == "ready")
        metrics.body_bytes.watch(lambda: self.bodies.held_bytes)
        metrics.job_followers.watch(lambda: self.feeds.followers)

    def ready(self) -> Serving:
        """What serves requests.

        Raises NotReadyError while starting or stopping, EngineDeadError if the engine died.
        """
        self.lifecycle.check()
        if self.serving is None:
            raise self.lifecycle.not_ready()
        return self.serving

    def base(self) -> BaseModelInfo:
        """The base model, also while draining. Raises NotReadyError before it is loaded."""
        return self._served().base

    def limits(self) -> Limits:
        """The limits of requests. Raises NotReadyError like `base`."""
        return self._served().limits

    def vocabulary(self) -> Vocabulary:
        """The base model's vocabulary. Raises NotReadyError like `base`."""
        return self._served().vocabulary

    def max_prompt_rows(self) -> int:
        """The longest prompt that can be used."""
        served = self._served()
        return longest_prompt(served.base.prompt_rows, served.limits)

    async def save_and_see(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the store that changes tenants or keys; this process goes by it from now on."""
        saved = await self.library.save(function, *args, **kwargs)
        await self.changes.read()
        return saved

    def wake_jobs(self, kinds: Collection[str] = KINDS) -> None:
        """Jobs of these kinds were queued: look for them now."""
        for runner in (self.tuning, *self.engine_jobs):
            if runner is not None and runner.kind in kinds:
                runner.wake()

    def _stats(self) -> EngineStats:
        return EngineStats() if self.serving is None else self.serving.engine.stats()

    def _served(self) -> Serving:
        if self.serving is None:
            raise self.lifecycle.not_ready()
        return self.serving


def longest_prompt(table_rows: int, limits: Limits) -> int:
    """Rows of the longest prompt that can be used: it fits the table, and leaves room for one token and
    `</s>`."""
    return max(1, min(limits.max_input_tokens - 2, table_rows))


def services_of(request: Request) -> Services:
    """The container of the app that handles this request."""
    services: Services = request.app.state.services
    return services


def acting_store(request: Request) -> PromptStore:
    """The store, whose changes the audit log gives to the caller of an authorised request. What is made of a
    request that may come again is remembered with it."""
    context = context_of(request)
    if context.principal is None:
        raise RuntimeError("nobody changes the store before its key was checked")
    address = request.client.host if request.client else ""
    actor = Actor(context.principal.key or context.principal.name, address, context.request_id)
    store = services_of(request).library.store.acting_for(actor)
    return store if context.creation is None else store.creating(context.creation)


def share_of(request: Request) -> BodyShare:
    """Memory for the body of an authorised request. It is given back once the request has been answered."""
    context = context_of(request)
    tenant = context.principal.tenant if context.principal else ""
    context.body = BodyShare(services_of(request).bodies, tenant)
    return context.body
