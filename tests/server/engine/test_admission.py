"""The door of the engine: bounds, quotas, refusals with Retry-After, the journal."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from engine_tools import DictSource, FakeClock, generate, running_engine
from virtual_time import Simulation

from server.engine.config import EngineConfig
from server.engine.handle import RequestHandle
from server.engine.observer import NullObserver, RequestDone
from server.engine.requests import Origin
from server.engine.scheduler.admission import Admission
from server.engine.scheduler.fitting import Fit
from server.engine.scheduler.journal import Journal
from server.engine.scheduler.rates import ServiceRate
from server.engine.scheduler.tickets import Ticket
from server.errors import ConflictError, InternalError, InvalidInputError, OverloadedError, QuotaExceededError


def waiting_engine_config(**settings: object) -> EngineConfig:
    return EngineConfig(check_integrity=True, **settings)  # type: ignore[arg-type]


def gated_source() -> DictSource:
    source = DictSource()
    source.gate = threading.Event()
    source.add("p", 2)
    return source


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    source = gated_source()
    prompt = source.add("p", 2)
    with running_engine(config=waiting_engine_config(max_queued_requests=4), source=source) as (engine, _):
        handles = [engine.submit(generate(prompt, (i, 1))) for i in range(4)]
        with pytest.raises(OverloadedError) as refused:
            engine.submit(generate(prompt, (9, 1)))
        assert refused.value.retry_after_seconds is not None and refused.value.retry_after_seconds >= 1
        other = engine.submit(generate(prompt, (9, 1), tenant="quiet"))
        with pytest.raises(OverloadedError):
            engine.submit(generate(prompt, (9, 1), tenant="third"))
        assert source.gate is not None
        source.gate.set()
        for handle in (*handles, other):
            handle.wait(300)
        engine.submit(generate(prompt, (9, 1))).wait(300)


def test_a_tenants_own_bound_is_a_quota() -> None:
    source = gated_source()
    prompt = source.add("p", 2)
    with running_engine(config=waiting_engine_config(max_queued_per_tenant=2), source=source) as (engine, _):
        for i in range(2):
            engine.submit(generate(prompt, (i, 1)))
        with pytest.raises(QuotaExceededError) as refused:
            engine.submit(generate(prompt, (9, 1)))
        assert refused.value.retry_after_seconds == 1.0
        engine.submit(generate(prompt, (9, 1), tenant="b"))
        assert source.gate is not None
        source.gate.set()
        assert engine.wait_idle(300)


def test_two_requests_may_not_share_an_id() -> None:
    source = gated_source()
    request = generate(source.add("p", 2), (4, 1))
    with running_engine(source=source) as (engine, _):
        engine.submit(request)
        with pytest.raises(ConflictError):
            engine.submit(request)
        assert source.gate is not None
        source.gate.set()
        assert engine.wait_idle(300)
        engine.submit(request).wait(300)


def test_the_journal_file_has_a_line_for_each_acceptance_and_each_outcome(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    with running_engine(config=waiting_engine_config(journal_path=path)) as (engine, _):
        engine.submit(generate((4, 1))).wait(300)
        with pytest.raises(InvalidInputError):
            engine.submit(generate((4, 1), max_new_tokens=10_000))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["event"], line.get("outcome")) for line in lines] == [("accepted", None), ("outcome", "ok")]


def test_an_unwritable_journal_accepts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with running_engine(journal=Journal(full)) as (engine, _):
        with pytest.raises(InternalError, match="journal cannot be written"):
            engine.submit(generate((4, 1)))
        assert engine.stats().permits == 0 and engine.stats().idle
    journal = Journal(full)
    journal.outcome("a", "ok")  # the disk became full in between: the answer goes out all the same
    journal.close()
    assert "No space left" in caplog.text and "Traceback" not in caplog.text


def ticket(clock: FakeClock, name: str, tenant: str = "a", deadline: float | None = None) -> Ticket:
    request = generate((4, 1), tenant=tenant, deadline_seconds=deadline)
    origin = Origin(name, tenant, deadline_seconds=deadline)
    fit = Fit(2, (), 16, None, 1, "plain", None, 1.0)
    object.__setattr__(request, "origin", origin)
    return Ticket(request, fit, RequestHandle(name, lambda error: None), 0, clock(), None)


def test_a_deadline_that_the_queue_cannot_meet_is_refused_early() -> None:
    clock = FakeClock()
    admission = Admission(EngineConfig(), Journal())
    for _ in range(20):
        clock.advance(0.1)
        admission.served(clock(), 0.1)
    for number in range(100):
        admission.admit(ticket(clock, f"w{number}"), clock())
    with pytest.raises(OverloadedError, match="more than the deadline") as refused:
        admission.admit(ticket(clock, "late", deadline=2.0), clock())
    assert refused.value.retry_after_seconds == pytest.approx(5.0, rel=0.1)
    admission.admit(ticket(clock, "patient", deadline=8.0), clock())
    admission.admit(ticket(clock, "quiet", tenant="b", deadline=2.0), clock())


def test_retry_after_follows_the_service_rate() -> None:
    rate = ServiceRate()
    assert rate.retry_after(1000, 0.0) == 1.0
    for number in range(64):
        rate.finished(number * 0.05, 0.2)
    now = 63 * 0.05
    assert rate.per_second(now) == pytest.approx(20)
    assert rate.retry_after(400, now) == pytest.approx(10)
    assert rate.retry_after(1_000_000, now) == 60.0


def overload(times_capacity: float, *, shed: bool) -> float:
    """Answers in time a second, at `times_capacity` of what the simulated device serves."""
    config = EngineConfig(shed_unmeetable=shed, max_queued_requests=150 if shed else 100_000)
    sim = Simulation(config=config)
    seconds, capacity = 2.0, 330.0
    sent = int(seconds * capacity * times_capacity)

    def come(number: int) -> None:
        request = generate((number % 900, 1), max_new_tokens=8, min_new_tokens=7, deadline_seconds=0.4)
        try:
            sim.submit(request)
        except OverloadedError as error:
            assert error.retry_after_seconds

    for number in range(sent):
        sim.at(number / (capacity * times_capacity), lambda number=number: come(number))
    sim.run()
    sim.scheduler.check_idle()
    return sum(wait <= 0.4 for _, wait, _ in sim.served) / seconds


def test_goodput_holds_under_overload_and_collapses_without_shedding() -> None:
    peak = max(overload(load, shed=True) for load in (0.5, 1.0))
    assert overload(10.0, shed=True) >= 0.9 * peak
    assert overload(10.0, shed=False) < 0.9 * peak


def test_a_failing_metrics_hook_does_not_reach_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[RequestDone] = []

    class Observer(NullObserver):
        def request_done(self, done: RequestDone) -> None:
            seen.append(done)
            raise ValueError("no such series")

    with running_engine(observer=Observer()) as (engine, _):
        engine.submit(generate((4, 1), task="a/x")).wait(300)
        assert engine.wait_idle(300)
    assert seen[0].outcome == "ok" and seen[0].origin.task == "a/x" and seen[0].timings is not None
    assert "metrics hook request_done failed" in caplog.text
