"""More work than the engine can do, and less, on virtual time: what can be in time is not refused, and under
overload what is admitted is answered in time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from chorus.retries import RetryBudget, RetryPolicy
from chorus_server.engine.config import EngineConfig
from chorus_server.engine.requests import Request, ScoreRequest
from chorus_server.engine.scheduler import admission as door
from chorus_server.engine.scheduler.rates import ServiceRate
from chorus_server.errors import OverloadedError
from tests.server.engine.engine_tools import generate, score
from tests.server.engine.virtual_time import Simulation

PER_SECOND = {"quick": 635, "usual": 388, "slow": 218, "scored": 1740}
"""What the simulated device answers a second of each kind, when it has a queue."""


def ask(kind: str, number: int, deadline: float | None) -> Request:
    text = number % 900
    match kind:
        case "quick":
            return generate((text, 1), max_new_tokens=4, min_new_tokens=3, deadline_seconds=deadline)
        case "usual":
            return generate((text, 1), max_new_tokens=8, min_new_tokens=7, deadline_seconds=deadline)
        case "slow":
            long = (*[text] * 12, 1)
            return generate(long, max_new_tokens=16, min_new_tokens=15, deadline_seconds=deadline)
        case _:
            return score((text, 1), targets=[(5, 1), (6, 1)], deadline_seconds=deadline)


def _kind(request: Request) -> str:
    if isinstance(request, ScoreRequest):
        return "scored"
    return {4: "quick", 8: "usual", 16: "slow"}[request.sampling.max_new_tokens]


@dataclass
class Load:
    """A simulated engine and what became of the requests that were sent to it."""

    shed: bool = True
    rate: ServiceRate | None = None
    refused: list[float] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        config = EngineConfig(shed_unmeetable=self.shed, max_queued_requests=2048 if self.shed else 1 << 20)
        self.sim = Simulation(config=config)
        if self.rate is not None:
            self.sim.admission._rate = self.rate
        self._began = self.sim.clock()

    def call(self, at: float, kind: str, count: int, deadline: float | None) -> None:
        """One call of `count` inputs."""

        def come() -> None:
            beside = 0.0
            for _ in range(count):
                beside += self._submit(kind, deadline, beside)

        self.sim.at(at, come)

    def singles(self, at: float, kind: str, count: int, deadline: float | None) -> None:
        """As many calls of one input, all at once."""
        for _ in range(count):
            self.call(at, kind, 1, deadline)

    def stream(self, at: float, seconds: float, rate: float, kinds: Sequence[str], deadline: float) -> None:
        """Poisson arrivals of calls of one input."""
        choose = random.Random(f"{at} {rate} {kinds}")
        moment = at + choose.expovariate(rate)
        while moment < at + seconds:
            self.call(moment, choose.choice(kinds), 1, deadline)
            moment += choose.expovariate(rate)

    def run(self) -> Load:
        self.sim.run()
        self.sim.scheduler.check_idle()
        return self

    @property
    def in_time(self) -> int:
        """Answers before their deadline."""
        return len(self._good())

    @property
    def worth(self) -> float:
        """The same in seconds of the device: of kinds that cost eight times as much as others, an overload
        may let in more or fewer."""
        return sum(1 / PER_SECOND[_kind(request)] for request in self._good())

    def _good(self) -> list[Request]:
        return [
            request
            for request, wait, _ in self.sim.served
            if request.origin.deadline_seconds is None or wait <= request.origin.deadline_seconds
        ]

    def _submit(self, kind: str, deadline: float | None, beside: float) -> float:
        self.sent += 1
        try:
            return self.sim.submit(ask(kind, self.sent, deadline), beside).work
        except OverloadedError as error:
            assert error.retry_after_seconds is not None and error.retry_after_seconds >= 1
            self.refused.append(self.sim.clock() - self._began)
            return 0.0


class RateWithoutPasses(ServiceRate):
    """The control: as if work left the queue bit by bit."""

    def wait_seconds(self, work: float, now: float) -> float:
        return work * self._seconds_a_work if self.stands else 0.0


class RateOfTheClock(RateWithoutPasses):
    """The control: time counts whether anything waited or not, and nothing is forgotten."""

    def prefilled(self, now: float, work: float, *, waited: bool, left: bool) -> None:
        super().prefilled(now, work, waited=True, left=True)

    def idle(self) -> None:
        return None


def after_idleness(load: Load) -> None:
    """The engine does something, then nothing for minutes, then gets 200 inputs at once."""
    load.singles(0.0, "usual", 20, 60.0)
    load.stream(1.0, 10.0, 5.0, ["usual"], 60.0)
    load.call(300.0, "usual", 200, 0.65)
    load.singles(600.0, "usual", 200, 0.65)


def slow_then_quick(load: Load) -> None:
    """200 of one kind; when they are done 200 of another; and 200 more behind slow ones that still wait."""
    load.singles(0.0, "slow", 200, 60.0)
    load.singles(1.0, "quick", 200, 0.4)
    load.call(2.0, "slow", 200, 60.0)
    load.call(2.5, "quick", 200, 0.9)
    load.call(4.0, "quick", 200, 60.0)
    load.call(4.15, "slow", 200, 1.3)


def one_at_a_time(load: Load) -> None:
    """A second of lone requests, at a fifth of what a full engine does, then 200 at once beside them."""
    for number in range(100):
        load.call(number / 50, "usual", 1, 1.5)
    load.call(1.001, "usual", 200, 0.8)


def kinds_that_do_not_mix(load: Load) -> None:
    """Pairs that cannot share a pass wait for each other all the time; then a burst."""
    for number in range(100):
        load.call(number / 50, "slow", 1, 0.5)
        load.call(number / 50, "scored", 1, 0.5)
    load.call(1.001, "scored", 400, 0.5)


def steady(share: float) -> Callable[[Load], None]:
    """Poisson arrivals of each kind alone, one after the other, and of all mixed."""

    def send(load: Load) -> None:
        for place, (kind, rate) in enumerate(PER_SECOND.items()):
            load.stream(5.0 * place, 1.5, share * rate, [kind], 0.5)
        mixed = 4 / sum(1 / rate for rate in PER_SECOND.values())
        load.stream(30.0, 3.0, share * mixed, [*PER_SECOND], 1.2)

    return send


FEASIBLE = {
    "idleness": after_idleness,
    "slow, then quick": slow_then_quick,
    "one at a time": one_at_a_time,
    "kinds that do not mix": kinds_that_do_not_mix,
    "half the capacity": steady(0.5),
    "three quarters of it": steady(0.75),
}


@pytest.mark.parametrize("name", FEASIBLE)
def test_what_can_be_in_time_is_not_refused(name: str) -> None:
    possible, load = Load(shed=False), Load()
    for each in (possible, load):
        FEASIBLE[name](each)
        each.run()
    assert possible.in_time == possible.sent, "the load itself asks for too much"
    assert load.sent - load.in_time <= load.sent // 100


@pytest.mark.parametrize("name", ["idleness", "slow, then quick", "one at a time"])
def test_a_rate_over_all_time_takes_idleness_for_slowness(name: str) -> None:
    load = Load(rate=RateOfTheClock())
    FEASIBLE[name](load)
    load.run()
    assert load.sent - load.in_time > load.sent // 50


def capacity(kinds: Sequence[str]) -> float:
    """What the simulated device answers a second of a steady mixture."""
    return len(kinds) / sum(1 / PER_SECOND[kind] for kind in kinds)


def overloaded(times: float, kinds: Sequence[str], *, shed: bool = True) -> Load:
    load = Load(shed=shed)
    load.stream(0.0, 1.5, times * capacity(kinds), kinds, 0.5)
    return load.run()


@pytest.mark.parametrize("kinds", [["usual"], [*PER_SECOND]], ids=["one kind", "four kinds"])
def test_goodput_holds_under_overload(kinds: Sequence[str]) -> None:
    runs = {times: overloaded(times, kinds) for times in (0.5, 1.0, 5.0, 10.0)}
    peak = max(load.worth for load in runs.values())
    assert not runs[0.5].refused
    for times in (5.0, 10.0):
        load = runs[times]
        assert load.worth >= 0.9 * peak, times
        # What is admitted is answered in time: a request that waits in vain had better been refused.
        assert len(load.sim.served) + len(load.sim.failed) <= 1.1 * load.in_time, times


@pytest.mark.parametrize("passes", [True, False], ids=["real", "control"])
def test_a_deadline_of_a_few_passes_counts_the_one_that_runs(passes: bool) -> None:
    """A third of such a deadline may be over before the next pass begins."""
    load = Load(rate=ServiceRate() if passes else RateWithoutPasses())
    load.stream(0.0, 3.0, 10 * PER_SECOND["slow"], ["slow"], 0.1)
    share = load.run().in_time / 3.0 / PER_SECOND["slow"]
    assert share >= 0.9 if passes else share < 0.8


def test_without_shedding_goodput_collapses() -> None:
    assert overloaded(10.0, ["usual"], shed=False).in_time < 0.5 * overloaded(1.0, ["usual"]).in_time


def test_twice_the_deadline_is_too_much_to_admit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_WAIT_SHARE", 2.0)
    monkeypatch.setattr(door, "_SHARE", 2.2)
    load = overloaded(5.0, ["usual"])
    assert len(load.sim.served) + len(load.sim.failed) > 1.2 * load.in_time


def test_after_an_overload_nothing_is_refused_and_clients_have_tried_again_seldom() -> None:
    """Clients try again as ours do: after `Retry-After`, within their budget."""
    load, usual = Load(), capacity(["usual"])
    budget = RetryBudget(RetryPolicy(), load.sim.clock)
    again: list[int] = []

    def call(number: int, attempts: int = 3) -> None:
        try:
            load.sim.submit(ask("usual", number, 0.5))
        except OverloadedError as error:
            load.refused.append(load.sim.clock() - 100.0)
            assert error.retry_after_seconds is not None
            if attempts and budget.take():
                again.append(number)
                load.sim.at(error.retry_after_seconds, lambda: call(number, attempts - 1))

    def first(number: int) -> None:
        budget.first_attempt()
        call(number)

    moments = [n / (5 * usual) for n in range(int(10 * usual))] + [
        2.0 + n / (0.5 * usual) for n in range(int(4 * usual))
    ]
    for number, moment in enumerate(moments):
        load.sim.at(moment, lambda number=number: first(number))
    load.run()
    assert max(load.refused) < 2.0 + 2.0
    assert 0 < len(again) <= 0.2 * len(moments)
