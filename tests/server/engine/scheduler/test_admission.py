"""The door of the engine: bounds, quotas, refusals with Retry-After, the journal."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import prometheus_client
import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.requests import Origin, Priority
from chorus_server.engine.scheduler.admission import AdmissionControl
from chorus_server.engine.scheduler.fitting import Fit
from chorus_server.engine.scheduler.journal import Journal
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.errors import (
    ConflictError,
    InternalError,
    InvalidInputError,
    OverloadedError,
    QuotaExceededError,
)
from tests.server.engine.engine_tools import DictSource, FakeClock, generate, running_engine, score


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


def ticket(
    clock: FakeClock,
    name: str,
    tenant: str = "a",
    deadline: float | None = None,
    priority: Priority = "interactive",
) -> Ticket:
    """One that takes one step and is 16 units of work."""
    request = score((4, 1), targets=[(5, 1)], tenant=tenant)
    object.__setattr__(request, "origin", Origin(name, tenant, priority=priority, deadline_seconds=deadline))
    fit = Fit(2, (), 16, None, 0, "plain", (2, 4), 16.0)
    due = None if deadline is None else clock() + deadline
    return Ticket(request, fit, RequestHandle(name, lambda error: None), 0, clock(), due)


def standing(clock: FakeClock, priority: Priority = "interactive") -> tuple[AdmissionControl, list[Ticket]]:
    """A queue of 100 that has stood for a second, in which 10 were taken in passes of one."""
    admission = AdmissionControl(EngineConfig(max_queued_requests=120), Journal())
    queue = [ticket(clock, f"w{number}", priority=priority) for number in range(111)]
    for each in queue:
        each.queued = clock()
        admission.admit(each, clock())
    for each in queue[:11]:
        admission.dispatched([each], clock())
        clock.advance(0.1)
        admission.served(each, 0.05)
    return admission, queue[11:]


def test_a_deadline_that_the_queue_cannot_meet_is_refused_early() -> None:
    clock = FakeClock()
    admission, _ = standing(clock)
    with pytest.raises(OverloadedError, match="too much for the deadline") as refused:
        admission.admit(ticket(clock, "late", deadline=12.0), clock())
    assert refused.value.retry_after_seconds == pytest.approx(5.0, rel=0.1)
    admission.admit(ticket(clock, "patient", deadline=18.0), clock())
    admission.admit(ticket(clock, "quiet", tenant="b", deadline=2.0), clock())


def test_a_backlog_of_batch_refuses_no_interactive_request_because_of_its_deadline() -> None:
    clock = FakeClock()
    admission, _ = standing(clock, "batch")
    admission.check("a", 1.0, 2.0, clock())
    admission.admit(ticket(clock, "urgent", deadline=2.0), clock())
    with pytest.raises(OverloadedError, match="too much for the deadline"):
        admission.admit(ticket(clock, "batch", deadline=12.0, priority="batch"), clock())
    control, _ = standing(FakeClock(), "interactive")
    with pytest.raises(OverloadedError, match="too much for the deadline"):
        control.admit(ticket(clock, "urgent", deadline=2.0), clock())


@pytest.mark.parametrize(("tenant", "priority"), [("a", "interactive"), ("b", "batch")])
def test_a_queue_full_of_batch_lets_in_those_who_have_little_in_it(tenant: str, priority: Priority) -> None:
    clock = FakeClock()
    admission = AdmissionControl(EngineConfig(max_queued_requests=64), Journal())
    for number in range(64):
        admission.admit(ticket(clock, f"w{number}", priority="batch"), clock())
    with pytest.raises(OverloadedError):
        admission.admit(ticket(clock, "more", priority="batch"), clock())
    for number in range(2):  # more than one, as a caller with two questions at once has
        admission.admit(ticket(clock, f"little{number}", tenant, priority=priority), clock())
    with pytest.raises(OverloadedError):
        for number in range(64):
            admission.admit(ticket(clock, f"much{number}", tenant, priority=priority), clock())


def test_the_check_before_a_request_is_read_refuses_what_would_be_refused_anyway() -> None:
    clock = FakeClock()
    admission, _ = standing(clock)
    assert admission.crowded
    with pytest.raises(OverloadedError, match="too much for the deadline"):
        admission.check("a", 1.0, 12.0, clock())
    with pytest.raises(OverloadedError):
        admission.check("a", 1.0, 18.0, clock(), coming=10)
    with pytest.raises(OverloadedError):
        admission.check("a", 1.0, 18.0, clock(), steps=100)  # of 0.05 s each
    admission.check("a", 1.0, 18.0, clock())
    admission.check("a", 1.0, None, clock())
    admission.check("b", 1.0, 2.0, clock())
    for number in range(20):
        admission.admit(ticket(clock, f"more{number}"), clock())
    with pytest.raises(OverloadedError, match="which is the limit"):
        admission.check("a", 1.0, None, clock())
    admission.check("b", 1.0, None, clock())


def test_what_one_tenant_waits_for_follows_the_shares_of_the_others() -> None:
    """Tenant b has weight 2: while 1 of c is served, 2 of b are; of a's 100 as many as of c."""
    clock = FakeClock()
    admission, _ = standing(clock)
    for number in range(10):
        admission.admit(ticket(clock, f"c{number}", tenant="c"), clock())
    with pytest.raises(OverloadedError):
        admission.admit(ticket(clock, "late", tenant="c", deadline=3.0), clock())
    admission.admit(ticket(clock, "patient", tenant="c", deadline=4.0), clock())
    admission.check("d", 1.0, 1.0, clock())  # of each other tenant nothing goes before what costs nothing


def test_the_items_of_one_call_do_not_stand_in_each_others_way() -> None:
    clock = FakeClock()
    admission, queue = standing(clock)
    beside = 0.0
    for number in range(20):
        one = ticket(clock, f"item{number}", deadline=17.0)
        admission.admit(one, clock(), beside)
        beside += one.work
    for each in queue[:20]:
        admission.release(each)
    with pytest.raises(OverloadedError):
        admission.admit(ticket(clock, "another", deadline=16.0), clock())


def test_what_was_learned_is_forgotten_when_nothing_is_under_way() -> None:
    clock = FakeClock()
    admission, queue = standing(clock)
    for each in queue:
        admission.dispatched([each], clock())
    for number in range(11):
        admission.release(ticket(clock, f"w{number}"))
    assert admission.crowded
    for each in queue:
        admission.release(each)
    assert not admission.permits and not admission.crowded
    for number in range(100):
        admission.admit(ticket(clock, f"new{number}", deadline=0.1), clock())


def test_metrics_that_fail_do_not_reach_the_engine(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no such series")

    monkeypatch.setattr(prometheus_client.Counter, "inc", fail)
    monkeypatch.setattr(prometheus_client.Histogram, "observe", fail)
    with pytest.raises(ValueError):  # the control
        prometheus_client.Counter("a", "b", registry=None).inc()
    source = DictSource()
    with running_engine(source=source) as (engine, _):
        answered = engine.submit(generate(source.add("p", 3), (4, 1), max_new_tokens=4)).wait(300)
        assert answered.sequences and engine.wait_idle(300)
        with pytest.raises(InvalidInputError):
            engine.submit(generate((1 << 20, 1)))
    lost = {record.getMessage().split()[0] for record in caplog.records if "not be counted" in record.message}
    assert lost > {
        "chorus_requests_total", "chorus_requests_refused_total", "chorus_prompt_fetches_total",
        "chorus_prompt_loads_total", "chorus_batch_rows", "chorus_decode_slots", "chorus_first_token_seconds",
    }  # fmt: skip
