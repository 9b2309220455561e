"""What a process does is timed by a clock that stands still while the process does. Each test has the control
of a clock that goes on."""

from __future__ import annotations

import inspect
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from chorus_server.api.http.context import RequestContext
from chorus_server.api.inference.calls import Call
from chorus_server.awake import PAUSE_SECONDS, AwakeClock, awake
from chorus_server.connections.listener import BoundedServer
from chorus_server.connections.registry import Connection, ConnectionLimits, ConnectionPhase, Registry
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, StepPlan
from chorus_server.engine.requests import Priority, Request
from chorus_server.engine.thread.engine import Engine
from chorus_server.errors import EngineDeadError, OverloadedError
from chorus_server.jobs.download import fetch_url
from chorus_server.jobs.leased import LeasedJob
from chorus_server.tuning.jobs.stages.reporting import Reporter
from chorus_server.tuning.jobs.stages.stretches import Stretch
from chorus_server.tuning.training.events import StepFinished
from tests.server.engine.engine_tools import FakeClock, generate, running_engine, score
from tests.server.engine.thread.test_background import Work
from tests.server.engine.virtual_time import Simulation

HOUR = 3600.0


class PausedClock(FakeClock):
    """The clock of a process that is stopped for an hour at each of these moments, counted in its own
    seconds.

    Args:
        stopped: the moments, in order.
        raw: the control: what a clock says that goes on meanwhile.
    """

    def __init__(self, stopped: Sequence[float] = (), *, raw: bool = False) -> None:
        super().__init__()
        self._stopped = [self.now + moment for moment in stopped]
        self._hours = 0.0
        self._raw = raw
        self._awake = AwakeClock(lambda: self.now + self._hours)

    def __call__(self) -> float:
        while self._stopped and self.now >= self._stopped[0]:
            del self._stopped[0]
            self.stop()
        if not self._raw:
            assert self._awake() == pytest.approx(self.now, abs=1e-6)
        return self.now

    def stop(self) -> None:
        """Be stopped for an hour, now."""
        if self._raw:
            self.now += HOUR
            return
        self._awake()
        self._hours += HOUR
        self._awake()


@pytest.mark.parametrize("seed", range(20))
def test_only_pauses_are_left_out(seed: int) -> None:
    choose, real = random.Random(seed), FakeClock()
    clock, worked = AwakeClock(real), 0.0
    begun = clock()
    for _ in range(200):
        if choose.random() < 0.1:
            real.advance(PAUSE_SECONDS + choose.expovariate(1 / HOUR))
        else:
            passed = PAUSE_SECONDS * choose.random()
            real.advance(passed)
            worked += passed
        assert clock() - begun == pytest.approx(worked)


def test_it_is_what_the_process_times_itself_with() -> None:
    for timed in (Engine, Registry, BoundedServer, Reporter, Call, fetch_url):
        assert inspect.signature(timed).parameters["clock"].default is awake, timed
    assert awake() <= RequestContext().started <= awake()


# The engine.

LADDER = Ladder(input_buckets=((1, 32), (4, 32)), blocks=(BlockShape(32, 32, 8),), score_buckets=((4, 16),))


def step_seconds(plan: StepPlan) -> float:
    return 0.002 * plan.tokens if isinstance(plan, DecodePlan) else 0.01


def outcomes(seed: int, clock: PausedClock, deadline: float | None) -> list[tuple[str, float]]:
    """What becomes of five seconds of interactive requests of two tenants beside a batch of one of them: its
    class or why it failed, and its seconds."""
    choose, sim, refused = random.Random(seed), Simulation(LADDER, cost=step_seconds, clock=clock), 0

    def ask(tenant: str, priority: Priority) -> Request:
        text = (*(choose.randrange(3, 900) for _ in range(8)), 1)
        given: dict[str, Any] = {"tenant": tenant, "priority": priority}
        given |= {} if priority == "batch" or deadline is None else {"deadline_seconds": deadline}
        if choose.random() < 0.3:
            return score(text, targets=[[5, 1], [6, 1]], **given)
        return generate(text, max_new_tokens=30, min_new_tokens=30, **given)

    def come(request: Request) -> None:
        nonlocal refused
        try:
            sim.submit(request)
        except OverloadedError:
            refused += 1

    for _ in range(60):
        sim.submit(ask("a", "batch"))
    at = 0.0
    while at < 5:
        request = ask(choose.choice("ab"), "interactive")
        sim.at(at, lambda request=request: come(request))  # type: ignore[misc]
        at += choose.expovariate(20)
    sim.run()
    told = [(request.origin.priority, seconds) for request, seconds, _ in sim.served]
    return [*told, *((code, 0.0) for _, code in sim.failed), ("refused", float(refused))]


@pytest.mark.parametrize("deadline", [None, 1.5])
@pytest.mark.parametrize("seed", [1, 2, 4])
def test_hours_without_the_process_change_no_decision_of_the_engine(
    seed: int, deadline: float | None
) -> None:
    choose = random.Random(seed)
    stopped = sorted(5 * choose.random() for _ in range(3))
    expected = outcomes(seed, PausedClock(), deadline)
    assert sum(kind == "interactive" for kind, _ in expected) > 50
    assert outcomes(seed, PausedClock(stopped), deadline) == expected
    control = outcomes(seed, PausedClock(stopped, raw=True), deadline)
    assert [kind for kind, _ in control] != [kind for kind, _ in expected]


@pytest.mark.parametrize("raw", [False, True], ids=["awake", "control"])
def test_an_hour_without_the_process_is_no_step_that_hangs(raw: bool) -> None:
    clock, died = PausedClock(raw=raw), list[EngineDeadError]()
    config = EngineConfig(step_timeout_seconds=120.0, watchdog_interval_seconds=3600)
    with running_engine(config=config, clock=clock, on_death=died.append, may_die=True) as (engine, _):
        work = Work(1)
        work.gate = threading.Event()
        engine.attach_background(work)
        assert work.entered.wait(300)
        clock.stop()
        engine.check_deadlines()
        assert bool(died) == raw
        for _ in range(31):  # and then one that hangs is still found
            clock.advance(4)
            engine.check_deadlines()
        assert len(died) == 1
        work.gate.set()


# Connections.


class Stalled:
    """A connection whose client has sent half a body."""

    phase = ConnectionPhase.BODY
    ended = False

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        registry.enter(cast(Connection, self))

    def out_of_time(self) -> None:
        self.ended = True
        self._registry.leave(cast(Connection, self))

    def unsent(self) -> int:
        return 0


@pytest.mark.parametrize("raw", [False, True], ids=["awake", "control"])
def test_a_client_was_not_silent_while_the_process_did_not_listen(raw: bool) -> None:
    clock = PausedClock(raw=raw)
    registry = Registry(ConnectionLimits(stall_seconds=30), clock)
    client = Stalled(registry)
    clock.stop()
    registry.sweep()
    assert client.ended == raw
    for _ in range(29):
        clock.advance(1)
        registry.sweep()
    assert client.ended == raw
    clock.advance(1)
    registry.sweep()
    assert client.ended


# Training.


class Held:
    """A job whose progress goes nowhere."""

    def update(self, **_: Any) -> None: ...

    tell: Callable[..., None] = update


@pytest.mark.parametrize("raw", [False, True], ids=["awake", "control"])
def test_a_job_that_stood_still_is_not_slow(raw: bool) -> None:
    clock, progress = PausedClock(raw=raw), dict[str, Any]()
    stretch = Stretch("", (0,), 0, None, None, 0, 1000)
    reporter = Reporter(cast(LeasedJob, Held()), stretch, ["t"], progress, clock)
    reporter.begin(0)
    for step in range(1, 101):
        clock.advance(0.5)
        reporter.add(StepFinished(step, (1.0,), (0.1,), (0.0,)))
        if step == 90:
            clock.stop()
    assert (progress["steps_per_second"] == 2.0) != raw
    assert (progress["seconds_left"] == 450.0) != raw
