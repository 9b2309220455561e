"""Background work on the engine's thread: when it gets a slice, and that it can harm nothing but itself."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import expected_tokens
from chorus_server.engine.thread.background import MEMORY_SECONDS, Background
from chorus_server.errors import EngineDeadError, InvalidInputError
from tests.server.engine.engine_tools import DictSource, FakeClock, generate, running_engine


class Work:
    """Wants `slices` slices and notes each in `log`."""

    def __init__(self, slices: int, log: list[str] | None = None, fails_at: int | None = None) -> None:
        self.left = slices
        self.log: list[str] = [] if log is None else log
        self.fails_at = fails_at
        self.done = threading.Event()
        self.entered = threading.Event()
        self.gate: threading.Event | None = None

    def wants_slice(self) -> bool:
        return self.left > 0

    def run_slice(self) -> None:
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(300), "the test never opened the gate"
        self.log.append("slice")
        self.left -= 1
        if self.left == self.fails_at:
            self.done.set()
            raise OSError("the work's own trouble")
        if not self.left:
            self.done.set()


def test_an_idle_engine_does_the_work_and_then_sleeps() -> None:
    with running_engine() as (engine, _):
        work = Work(20)
        engine.attach_background(work)
        assert work.done.wait(300)
        assert engine.wait_idle(300)
        work.done.clear()  # first: the engine may look again by itself
        work.left = 3
        engine.wake()
        assert work.done.wait(300)
        assert len(work.log) == 23


def test_a_request_waits_for_one_slice_and_is_then_served_whole() -> None:
    log: list[str] = []
    with running_engine(recorder=lambda plan: log.append("step")) as (engine, executor):
        work = Work(50, log)
        work.gate = threading.Event()
        engine.attach_background(work)
        assert work.entered.wait(300)
        request = generate((13, 1), max_new_tokens=8)
        handle = engine.submit(request)
        work.gate.set()
        done = handle.wait(300)
        assert done.sequences[0].tokens == expected_tokens(request, executor.vocab_size)
        assert work.done.wait(300)
    first, last = log.index("step"), len(log) - 1 - log[::-1].index("step")
    assert first == 1, "one slice was under way, no other came before the request"
    assert set(log[first : last + 1]) == {"step"}
    assert log.count("slice") == 50


def _slices_while_a_prompt_loads(share: float) -> int:
    source = DictSource()
    source.gate = threading.Event()
    with running_engine(config=EngineConfig(background_share=share), source=source) as (engine, _):
        waiting = engine.submit(generate(source.add("p", 2), (13, 1), max_new_tokens=4))
        assert source.fetching.acquire(timeout=300)
        work = Work(1000)
        engine.attach_background(work)
        for _ in range(5):  # each takes the loop round at least once
            engine.submit(generate((13, 1), max_new_tokens=4)).wait(300)
        ran = len(work.log)
        source.gate.set()
        waiting.wait(300)
        assert work.done.wait(300)
    return ran


def test_no_slice_runs_while_a_request_waits_for_its_prompt() -> None:
    assert _slices_while_a_prompt_loads(share=0.0) == 0
    assert _slices_while_a_prompt_loads(share=0.9) > 0, "a share is owed whatever waits"


def _under_load(share: float) -> int:
    """Slices that ran between the first and the last step of a queue of requests; time passes with each
    look at the clock."""
    ticks, log = count(), []
    config = EngineConfig(background_share=share)
    with running_engine(
        config=config, clock=lambda: next(ticks) / 1000, recorder=lambda plan: log.append("step")
    ) as (engine, _):
        gate = Work(1)
        gate.gate = threading.Event()
        engine.attach_background(gate)
        assert gate.entered.wait(300)
        handles = [engine.submit(generate((n, 1), max_new_tokens=8)) for n in range(60)]
        work = Work(10_000, log)
        engine.attach_background(work)
        gate.gate.set()
        for handle in handles:
            handle.wait(300)
        work.left = 0
    first, last = log.index("step"), len(log) - 1 - log[::-1].index("step")
    return log[first:last].count("slice")


def test_a_share_gives_slices_under_load_and_none_is_given_without() -> None:
    assert _under_load(0.3) >= 3
    assert _under_load(0.0) == 0


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_is_kept_over_time_and_never_saved_up(share: float) -> None:
    clock = FakeClock()

    class Always(Work):
        def run_slice(self) -> None:
            clock.advance(0.05)

    background = Background(share, clock, threading.Lock)  # type: ignore[arg-type]
    background.attach(Always(1))
    clock.advance(3600)
    used, started = 0.0, clock.now
    turns: list[bool] = []
    while clock.now - started < 20:
        turns.append(background.owed())
        if turns[-1]:
            background.run()
            used += 0.05
        else:
            clock.advance(0.01)
    assert used / 20 == pytest.approx(share, rel=0.1)
    assert turns[:2] == [True, False], "an hour of waiting is no claim to several slices in a row"
    # What was used while the device was idle counts, for a while.
    for _ in range(1000):
        background.run()
    assert not background.owed()
    clock.advance(MEMORY_SECONDS + 0.1)
    assert background.owed()


def test_work_that_raises_is_dropped_and_requests_go_on(caplog: pytest.LogCaptureFixture) -> None:
    with running_engine() as (engine, executor):
        work = Work(5, fails_at=3)
        engine.attach_background(work)
        assert work.done.wait(300)
        request = generate((13, 1), max_new_tokens=8)
        done = engine.submit(request).wait(300)
        assert done.sequences[0].tokens == expected_tokens(request, executor.vocab_size)
        assert len(work.log) == 2 and engine.dead is None
    assert "background work failed" in caplog.text


def test_a_slice_that_hangs_is_a_dead_device() -> None:
    clock = FakeClock()
    died: list[EngineDeadError] = []
    config = EngineConfig(step_timeout_seconds=5.0, watchdog_interval_seconds=3600)
    with running_engine(config=config, clock=clock, on_death=died.append, may_die=True) as (engine, _):
        work = Work(1)
        work.gate = threading.Event()
        engine.attach_background(work)
        assert work.entered.wait(300)
        clock.advance(4)
        engine.check_deadlines()
        assert not died
        clock.advance(2)
        engine.check_deadlines()
        assert len(died) == 1
        work.gate.set()


def test_a_deadline_is_kept_while_a_slice_runs() -> None:
    clock = FakeClock()
    with running_engine(clock=clock) as (engine, _):
        work = Work(1)
        work.gate = threading.Event()
        engine.attach_background(work)
        assert work.entered.wait(300)
        handle = engine.submit(generate((13, 1), max_new_tokens=8, deadline_seconds=1.0))
        clock.advance(2)
        engine.check_deadlines()
        with pytest.raises(Exception, match="deadline"):
            handle.wait(300)
        work.gate.set()


def test_an_engine_stops_though_work_is_never_done() -> None:
    class Endless(Work):
        def run_slice(self) -> None:
            self.entered.set()

    with running_engine() as (engine, _):
        work = Endless(1)
        engine.attach_background(work)
        assert work.entered.wait(300)
        engine.stop()
        engine._thread.join(300)  # `stop` itself waits for some seconds only
        assert not engine._thread.is_alive()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_is_a_share(share: Any) -> None:
    with pytest.raises(InvalidInputError, match="background_share"):
        EngineConfig(background_share=share)
