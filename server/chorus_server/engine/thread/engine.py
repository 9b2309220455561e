"""The engine: a scheduler and an executor on one thread. Requests come in from any thread, events go out to
any event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

from chorus_server.awake import awake
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.host_prompts import HostPromptTier, Values
from chorus_server.engine.metrics import EngineMetrics
from chorus_server.engine.plans import StepPlan
from chorus_server.engine.protocols import BackgroundWork, Executor, PendingStep, PromptSource
from chorus_server.engine.requests import FailedEvent, PromptHandle, Request
from chorus_server.engine.scheduler.admission import AdmissionControl
from chorus_server.engine.scheduler.core import Scheduler, SchedulerPorts
from chorus_server.engine.scheduler.deadlines import Deadlines
from chorus_server.engine.scheduler.fitting import Fitter
from chorus_server.engine.scheduler.journal import Journal
from chorus_server.engine.scheduler.steps import Step
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.engine.stats import EngineLook, EngineStats
from chorus_server.engine.thread.background import Background
from chorus_server.engine.thread.loader_pool import LoaderPool
from chorus_server.engine.thread.outcomes import Outcomes
from chorus_server.engine.thread.watchdog import Watchdog
from chorus_server.engine.work import Settled
from chorus_server.errors import ChorusError, DeadlineExceededError, EngineDeadError, shutting_down
from chorus_server.metrics import MetricsRegistry

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 5.0


class Engine:
    """Requests in, tokens out.

    Threads: the engine's own, which plans, dispatches and reads results; `loader_threads` that fetch prompts;
        and a watchdog, which enforces deadlines even if a device step hangs, and declares the engine dead if
        it hangs too long.

    Args:
        executor: owns the device; used only from the engine's thread.
        prompts: where prompt values come from.
        config: see `EngineConfig`.
        detokenise: turns token ids into text, for stop strings.
        clock: gives monotonic seconds. Deadlines go by it too: a pause of the process does not use them up.
        metrics: counts here; by default an object of its own.
        host_prompts: the host tier that the executor reads; by default the executor's own `host_prompts`.
        recorder: called with every step plan before it is dispatched.
        on_death: called once when the engine dies, after every waiting request got its error. The app then
            ends the process.
        journal: where admissions are written; by default made from the configuration.
        on_settled: see `Outcomes`.
        on_started: told the ids of requests that wait no more, because their prefill step is planned. It must
            be quick and never raise.
    """

    def __init__(
        self,
        executor: Executor,
        prompts: PromptSource,
        *,
        config: EngineConfig,
        detokenise: Callable[[Sequence[int]], str],
        clock: Callable[[], float] = awake,
        metrics: EngineMetrics | None = None,
        host_prompts: HostPromptTier | None = None,
        recorder: Callable[[StepPlan], None] | None = None,
        on_death: Callable[[EngineDeadError], None] | None = None,
        journal: Journal | None = None,
        on_settled: Callable[[Settled], None] | None = None,
        on_started: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        host = host_prompts if host_prompts is not None else getattr(executor, "host_prompts", None)
        if not isinstance(host, HostPromptTier):
            raise TypeError("pass the HostPromptTier that the executor reads as host_prompts")
        self.on_death = on_death
        self.recorder = recorder
        self._on_started = on_started
        self.journal = journal or Journal(config.journal_path, config.journal_entries)
        self._executor = executor
        self._config = config
        self._clock = clock
        self._metrics = metrics or EngineMetrics(MetricsRegistry())
        self._admission = AdmissionControl(config, self.journal)
        self._deadlines = Deadlines()
        self._outcomes = Outcomes(
            self.journal, self._metrics, self._admission, self._deadlines, clock, on_settled
        )
        self._numbers = count()
        rows = executor.prompt_row_capacity
        self._fitter = Fitter(executor.ladder, executor.padded_vocab_size, rows - config.pinned_prompt_rows)
        self._loaders = LoaderPool(prompts, host.dtype, config.loader_threads, clock, self._on_loaded)
        ports = SchedulerPorts(
            fetch=self._loaders.fetch,
            leaving_queue=self._leaving_queue,
            over=self._outcomes.over,
            service_seconds=self._admission.service_seconds,
            clock=clock,
        )
        self._scheduler = Scheduler(
            executor.ladder,
            rows,
            executor.padded_vocab_size,
            config=config,
            host=host,
            detokenise=detokenise,
            metrics=self._metrics,
            ports=ports,
        )
        self._watchdog = Watchdog(config, clock, self._expire, self._die)
        self._background = Background(config.background_share, clock, self._watchdog.watching)
        self._thread = threading.Thread(target=self._run, name="chorus-engine", daemon=True)
        # Guards the scheduler. It is never held while the device works, so `stats` answers at once.
        self._state = threading.Lock()
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._idle = True
        self._stopping = False
        self._dead: EngineDeadError | None = None
        self._death_lock = threading.Lock()

    # These may be called from any thread.

    @property
    def dead(self) -> EngineDeadError | None:
        """Why the engine died, if it has."""
        return self._dead

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the server is going down."""
        return self._admission.closed is not None

    @property
    def crowded(self) -> bool:
        """Whether so much waits that `check` may refuse. Cheap enough to ask at any time."""
        return self._admission.crowded

    def start(self) -> None:
        """Start the engine's threads."""
        self._loaders.start()
        self._thread.start()
        self._watchdog.start()

    def check(
        self,
        tenant: str,
        weight: float,
        deadline_seconds: float | None,
        *,
        coming: int = 0,
        steps: int = 1,
    ) -> None:
        """Refuse now what `submit` would refuse from this tenant, whatever the request is. For callers that
        have work to do before they submit. If the answer serves further requests, say so to `note_refused`.

        Args:
            deadline_seconds: the request's; None waits for ever.
            coming: how many requests will be submitted before it.
            steps: how many steps it takes at least.

        Raises:
            OverloadedError, QuotaExceededError: too much is waiting; the error has `retry_after_seconds`.
        """
        try:
            self._admission.check(tenant, weight, deadline_seconds, self._clock(), coming, steps)
        except ChorusError as error:
            self._metrics.requests_refused.inc(1, error.code)
            raise

    def note_refused(self, code: str, count: int) -> None:
        """Count requests that were refused by an answer of `check` to another."""
        self._metrics.requests_refused.inc(count, code)

    def submit(self, request: Request) -> RequestHandle:
        """Accept a request, or refuse it at once.

        Raises:
            InvalidInputError: the request fits no compiled shape.
            OverloadedError, QuotaExceededError: too much is waiting; the error has `retry_after_seconds`.
            ShuttingDownError: the engine is draining or has stopped.
            EngineDeadError: the engine died.
        """
        ticket = self._admit(request, self._clock())
        self._post(lambda: self._scheduler.arrive(ticket))
        return ticket.handle

    def submit_all(self, requests: Sequence[Request]) -> list[RequestHandle | ChorusError]:
        """Accept requests that arrive at the same instant, so that an idle engine puts them in one batch.

        Returns:
            In order, a handle for each, or the error if it was refused (see `submit`). The others go on.
        """
        now = self._clock()
        answers: list[RequestHandle | ChorusError] = []
        tickets: list[Ticket] = []
        work = 0.0
        for request in requests:
            try:
                ticket = self._admit(request, now, work)
            except ChorusError as error:
                answers.append(error)
                continue
            work += ticket.work
            tickets.append(ticket)
            answers.append(ticket.handle)

        def arrive() -> None:
            for ticket in tickets:
                self._scheduler.arrive(ticket)

        self._post(arrive)
        return answers

    def pin(self, prompt: PromptHandle) -> None:
        """Keep a prompt on the device once it is there.

        Raises:
            InvalidInputError: pinned prompts would exceed `pinned_prompt_rows`.
        """
        with self._state:
            self._scheduler.pin(prompt)

    def unpin(self, digest: str) -> None:
        """Allow a pinned prompt to be evicted again."""
        with self._state:
            self._scheduler.unpin(digest)

    def attach_background(self, work: BackgroundWork) -> None:
        """Give this work the device between steps, when nothing waits or within `background_share`."""
        self._background.attach(work)
        self.wake()

    def wake(self) -> None:
        """Look again for something to do, because background work wants a slice."""
        self._post(lambda: None)

    def stats(self) -> EngineStats:
        """The current value of every gauge."""
        with self._state:
            gauges, resident = self._scheduler.stats(), self._scheduler.resident_tasks()
        return replace(
            gauges,
            permits=self._admission.permits,
            queued_units=self._admission.waiting_units,
            resident_tasks=resident,
            waiting_tasks=tuple(self._admission.waiting_tasks()),
            draining=self.draining,
            dead=self._dead is not None,
        )

    def look(self) -> EngineLook:
        """Whose work the engine has now."""
        stats, now = self.stats(), self._clock()
        with self._state:
            on_device, prefill = self._scheduler.on_device(), self._scheduler.last_prefill
        age = 0.0 if prefill is None else max(0.0, now - prefill.at)
        return EngineLook(stats, on_device, prefill, age, self._admission.queue())

    async def drain(self, timeout_seconds: float) -> bool:
        """Refuse new requests and wait for accepted ones. Those unfinished after the timeout fail with
        `shutting_down`. True if all were answered in time."""
        self._close()
        if await asyncio.to_thread(self._admission.wait_empty, timeout_seconds):
            return True
        self._give_up_all()
        return False

    def stop(self) -> None:
        """Stop the threads. Requests still under way fail with `shutting_down`. A second call does
        nothing."""
        self._give_up_all()
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._watchdog.stop()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)
        self._loaders.stop(_JOIN_SECONDS)
        self.journal.close()

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Block until nothing is under way; for tests, and for the end of a drain. False if that took too
        long."""
        with self._wake:
            return self._wake.wait_for(lambda: self._idle and not self._inbox, timeout_seconds)

    def check_deadlines(self) -> None:
        """Do what the watchdog does at each interval; for tests with their own clock."""
        self._watchdog.check()

    # Outcomes that are decided off the engine's thread.

    def _admit(self, request: Request, now: float, beside: float = 0.0) -> Ticket:
        try:
            ticket = self._ticket(request, now)
            self._admission.admit(ticket, now, beside)
        except ChorusError as error:
            self._metrics.requests_refused.inc(1, error.code)
            raise
        self._deadlines.add(ticket)
        return ticket

    def _ticket(self, request: Request, now: float) -> Ticket:
        fit = self._fitter.fit(request)
        seconds = request.origin.deadline_seconds
        if seconds is None:
            seconds = self._config.default_deadline_seconds
        deadline = None if seconds is None or math.isinf(seconds) else now + seconds
        handle = RequestHandle(request.origin.request_id, lambda error: self._give_up(ticket, error))
        ticket = Ticket(request, fit, handle, next(self._numbers), now, deadline)
        return ticket

    def _close(self) -> list[Ticket]:
        """Refuse new requests. Returns those under way; none if the engine's death already settled them
        all."""
        if self._dead is not None:
            return []
        return self._admission.close(shutting_down())

    def _give_up_all(self) -> None:
        for ticket in self._close():
            self._give_up(ticket, shutting_down())

    def _give_up(self, ticket: Ticket, error: ChorusError) -> None:
        if self._outcomes.decide(ticket, FailedEvent(error)):
            self._post(lambda: self._scheduler.abandon(ticket))

    def _expire(self, now: float) -> None:
        for ticket in self._deadlines.expired(now):
            waited = now - ticket.arrived
            message = (
                f"The deadline passed, {waited:.3f} s after the engine took the request: allow more time, or "
                "try again later."
            )
            self._give_up(ticket, DeadlineExceededError(message))

    def _on_loaded(self, prompt: PromptHandle, values: Values | ChorusError, seconds: float) -> None:
        if isinstance(values, ChorusError):
            error = values
            self._metrics.prompt_fetched(seconds, 0, False)
            self._post(lambda: self._scheduler.load_failed(prompt.digest, error))
        else:
            array = values
            self._metrics.prompt_fetched(seconds, array.nbytes, True)
            self._post(lambda: self._scheduler.loaded(prompt.digest, array))

    def _post(self, action: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(action)
            self._idle = False  # until the engine's thread has seen what comes of it
            self._wake.notify_all()

    def _die(self, error: EngineDeadError) -> None:
        with self._death_lock:
            if self._dead is not None:
                return
            self._dead = error
        logger.critical("the engine died: %s", error.message)
        for ticket in self._admission.close(error):
            self._outcomes.over(ticket, FailedEvent(error))
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self.on_death is not None:
            self.on_death(error)

    # These run on the engine's thread.

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as error:
            logger.exception("the engine's thread failed")
            what = error.message if isinstance(error, ChorusError) else f"{type(error).__name__}: {error}"
            self._die(EngineDeadError(f"The engine stopped: {what.rstrip('.')}."))

    def _loop(self) -> None:
        in_flight: deque[tuple[Step, PendingStep]] = deque()
        while self._dead is None:
            self._read_inbox()
            self._expire(self._clock())
            room = len(in_flight) < self._config.max_in_flight_steps and not self._background.owed()
            step = self._plan() if room else None
            if step is not None:
                in_flight.append((step, self._dispatch(step)))
            elif in_flight:
                self._absorb(*in_flight.popleft())
            elif self._background.wanted() and self._is_free():
                self._background.run()
            elif not self._wait():
                return

    def _leaving_queue(self, tickets: Sequence[Ticket], now: float) -> None:
        self._admission.dispatched(tickets, now)
        if self._on_started is not None:
            self._on_started([ticket.key for ticket in tickets])

    def _read_inbox(self) -> None:
        with self._state:
            while self._inbox:
                self._inbox.popleft()()

    def _plan(self) -> Step | None:
        with self._state:
            return self._scheduler.plan()

    def _dispatch(self, step: Step) -> PendingStep:
        if self.recorder is not None:
            self.recorder(step.plan)
        with self._watchdog.watching():
            pending = self._executor.dispatch(step.plan)
        with self._state:
            self._scheduler.dispatched(step)
        return pending

    def _absorb(self, step: Step, pending: PendingStep) -> None:
        with self._watchdog.watching():
            result = self._executor.collect(pending)
        with self._state:
            self._scheduler.absorb(step, result)

    def _is_free(self) -> bool:
        """Whether a slice may run now that nothing is in flight or planned. It may if no request has come
        meanwhile or waits for its prompts, because it would have to wait for the slice; or if the slice is
        due."""
        with self._wake:
            if self._inbox or self._stopping:
                return False
            self._note_idle()
            return self._idle or self._background.owed()

    def _wait(self) -> bool:
        """There is nothing to do: sleep until something arrives or a deadline passes. False if the engine is
        to stop."""
        with self._wake:
            if self._inbox:
                return True
            self._note_idle()
            if self._stopping:
                return False
            due = self._deadlines.next()
            self._wake.wait(None if due is None else max(0.0, due - self._clock()))
            self._idle = False
            return True

    def _note_idle(self) -> None:
        self._idle = self._scheduler.stats().idle and not self._admission.permits
        if self._idle:
            if self._config.check_integrity:
                self._scheduler.check_idle()
            self._wake.notify_all()
