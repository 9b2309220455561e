"""The scheduler on virtual time: a fake executor with costs, arrivals at given moments, no thread and no
sleep."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import TINY_LADDER, FakeExecutor
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.host_prompts import HostPromptTier, to_compute_dtype
from chorus_server.engine.metrics import EngineMetrics
from chorus_server.engine.plans import DecodePlan, Ladder, StepPlan
from chorus_server.engine.requests import FailedEvent, PromptHandle, Request
from chorus_server.engine.scheduler.admission import AdmissionControl
from chorus_server.engine.scheduler.core import Scheduler, SchedulerPorts
from chorus_server.engine.scheduler.deadlines import Deadlines
from chorus_server.engine.scheduler.fitting import Fitter
from chorus_server.engine.scheduler.journal import Journal
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.engine.thread.outcomes import Outcomes, RequestOutcome
from chorus_server.errors import CancelledError, ChorusError, DeadlineExceededError
from chorus_server.metrics import MetricsRegistry
from tests.server.engine.engine_tools import FakeClock, words

Values = np.ndarray[Any, Any]


def step_seconds(plan: StepPlan) -> float:
    """A small T5 on a few cores: encoding costs by padded token, a decode step by the block, used or not."""
    if isinstance(plan, DecodePlan):
        return 0.002 * plan.tokens
    return 0.001 + 0.00002 * (plan.tokens or plan.bucket[0] * plan.bucket[1])


@dataclass
class Simulation:
    """Drives a scheduler.

    `served` holds (request, seconds from its arrival to its answer, answer) in order of answers; `failed`
    holds (request, error code). The control: with `know_tenants` false every request looks like the same
    tenant's, so one line serves them all.
    """

    ladder: Ladder = TINY_LADDER
    config: EngineConfig = field(default_factory=EngineConfig)
    know_tenants: bool = True
    rows: int = 64
    cost: Callable[[StepPlan], float] = step_seconds
    prompts: Mapping[str, Values | ChorusError] = field(default_factory=dict)
    load_seconds: float = 0.004
    scheduler_type: type[Scheduler] = Scheduler
    served: list[tuple[Request, float, RequestOutcome]] = field(default_factory=list)
    failed: list[tuple[Request, str]] = field(default_factory=list)
    on_over: Callable[[Request], None] = lambda request: None
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.host = HostPromptTier(self.config.host_prompt_bytes)
        self.executor = FakeExecutor(self.host, ladder=self.ladder, prompt_row_capacity=self.rows)
        self.journal = Journal(entries=100_000)
        self.admission = AdmissionControl(self.config, self.journal)
        metrics = EngineMetrics(MetricsRegistry())
        self.deadlines = Deadlines()
        self.outcomes = Outcomes(self.journal, metrics, self.admission, self.deadlines, self.clock)
        ports = SchedulerPorts(
            fetch=self._fetch,
            leaving_queue=self.admission.dispatched,
            over=self._over,
            service_seconds=self.admission.service_seconds,
            clock=self.clock,
        )
        V = self.executor.padded_vocab_size
        self.scheduler = self.scheduler_type(
            self.ladder,
            self.rows,
            V,
            config=self.config,
            host=self.host,
            detokenise=words,
            metrics=metrics,
            ports=ports,
        )
        self.fitter = Fitter(self.ladder, V, self.rows)
        self.service: list[tuple[str, float]] = []
        self._asked: dict[Ticket, Request] = {}
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = 0
        self._device_free = 0.0

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something `seconds` from now."""
        self._numbers += 1
        heapq.heappush(self._events, (self.clock() + seconds, self._numbers, action))

    def submit(self, request: Request, beside: float = 0.0) -> Ticket:
        """A request arrives now; `beside` is the work that came with it."""
        now, asked = self.clock(), request
        if not self.know_tenants:
            asked = replace(request, origin=replace(request.origin, tenant="everybody"))
        seconds = request.origin.deadline_seconds
        handle = RequestHandle(request.origin.request_id, lambda error: self.give_up(ticket, error))
        self._numbers += 1
        deadline = None if seconds is None else now + seconds
        ticket = Ticket(asked, self.fitter.fit(asked), handle, self._numbers, now, deadline)
        self.admission.admit(ticket, now, beside)
        self._asked[ticket] = request
        self.deadlines.add(ticket)
        self.scheduler.arrive(ticket)
        return ticket

    def give_up(self, ticket: Ticket, error: ChorusError | None = None) -> None:
        """The caller leaves, or its time is up."""
        if self.outcomes.decide(ticket, FailedEvent(error or CancelledError("left"))):
            self.scheduler.abandon(ticket)

    def run(self, arrivals: Sequence[tuple[float, Request]] = (), until: float = float("inf")) -> None:
        """Let `arrivals` (seconds from now) come, and work until nothing is left or `until` seconds
        passed."""
        end = self.clock() + until
        for seconds, request in arrivals:
            self.at(seconds, lambda request=request: self.submit(request))
        flying: deque[tuple[Any, Any, float]] = deque()
        while self.clock() < end:
            self._happen()
            step = self.scheduler.plan() if len(flying) < self.config.max_in_flight_steps else None
            if step is not None:
                pending = self.executor.dispatch(step.plan)
                self.scheduler.dispatched(step)
                self._device_free = max(self._device_free, self.clock()) + self.cost(step.plan)
                flying.append((step, pending, self._device_free))
            elif flying:
                done, pending, ready = flying.popleft()
                self.clock.now = max(self.clock(), ready)
                self.scheduler.absorb(done, self.executor.collect(pending))
            elif self._events:
                self.clock.now = max(self.clock(), self._events[0][0])
            else:
                return

    def _happen(self) -> None:
        while self._events and self._events[0][0] <= self.clock():
            heapq.heappop(self._events)[2]()
        for ticket in self.deadlines.expired(self.clock()):
            self.give_up(ticket, DeadlineExceededError("late"))

    def _fetch(self, prompt: PromptHandle) -> None:
        def arrive() -> None:
            found = self.prompts[prompt.digest]
            if isinstance(found, ChorusError):
                self.scheduler.load_failed(prompt.digest, found)
                return
            try:
                values = to_compute_dtype(prompt, found, self.host.dtype)
            except ChorusError as error:
                self.scheduler.load_failed(prompt.digest, error)
            else:
                self.scheduler.loaded(prompt.digest, values)

        self.at(self.load_seconds, arrive)

    def _over(self, ticket: Ticket, outcome: RequestOutcome | None) -> None:
        self.outcomes.over(ticket, outcome)
        decided, request = ticket.handle.outcome, self._asked.pop(ticket)
        assert decided is not None
        if isinstance(decided, FailedEvent):
            self.failed.append((request, decided.error.code))
        else:
            self.served.append((request, self.clock() - ticket.arrived, decided))
        self.on_over(request)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of `values` do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
