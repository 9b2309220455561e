"""An engine whose executor breaks: nobody is left hanging, and the process is told to end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import FakeExecutor
from chorus_server.engine.host_prompts import HostPromptTier
from chorus_server.engine.plans import DecodePlan, StepPlan
from chorus_server.engine.thread.engine import Engine
from chorus_server.errors import EngineDeadError, NotReadyError
from tests.server.engine.engine_tools import DictSource, FakeClock, generate, running_engine, words


class Breaks:
    """Raises at the n-th call."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, plan: StepPlan) -> None:
        self.left -= 1
        if self.left < 0:
            raise MemoryError("out of device memory")


@pytest.mark.parametrize("hook", ["on_dispatch", "on_collect"])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_every_waiting_request_is_told_and_the_app_too(hook: str, at: int) -> None:
    deaths: list[EngineDeadError] = []
    died = threading.Event()

    def on_death(error: EngineDeadError) -> None:
        deaths.append(error)
        died.set()

    with running_engine(fake={hook: Breaks(at)}, on_death=on_death, may_die=True) as (engine, _):
        handles = [engine.submit(generate((i, 1), max_new_tokens=30, min_new_tokens=30)) for i in range(8)]
        for handle in handles:
            with pytest.raises(EngineDeadError, match="out of device memory"):
                handle.wait(300)
        assert died.wait(300)
        assert len(deaths) == 1 and engine.dead is deaths[0]
        with pytest.raises(EngineDeadError):
            engine.submit(generate((9, 1)))
        assert engine.stats().dead and engine.stats().permits == 0
        ends = [line["outcome"] for line in engine.journal.entries() if line["event"] == "outcome"]
        assert ends == ["engine_dead"] * 8


def test_a_scheduler_that_sends_nonsense_kills_the_engine_and_hangs_nobody() -> None:
    with running_engine(may_die=True) as (engine, executor):
        executor._blocks.clear()
        with pytest.raises(EngineDeadError):
            engine.submit(generate((3, 1))).wait(300)


def hanging_engine(timeout: float | None) -> tuple[Engine, FakeClock, threading.Event, threading.Event]:
    clock, hanging, let_go = FakeClock(), threading.Event(), threading.Event()

    def hang(plan: StepPlan) -> None:
        if isinstance(plan, DecodePlan):
            hanging.set()
            assert let_go.wait(300)

    config = EngineConfig(step_timeout_seconds=timeout, watchdog_interval_seconds=3600)
    executor = FakeExecutor(HostPromptTier(1 << 20), on_collect=hang)
    engine = Engine(executor, DictSource(), config=config, detokenise=words, clock=clock)
    engine.start()
    return engine, clock, hanging, let_go


def test_the_watchdog_gives_a_hung_step_up() -> None:
    engine, clock, hanging, let_go = hanging_engine(5.0)
    handle = engine.submit(generate((3, 1)))
    assert hanging.wait(300)
    clock.advance(4.9)
    engine.check_deadlines()
    assert engine.dead is None
    clock.advance(0.2)
    engine.check_deadlines()
    with pytest.raises(EngineDeadError, match="not ended in 5 s"):
        handle.wait(0)
    assert engine.dead is not None
    let_go.set()
    engine.stop()


def test_control_without_the_watchdog_the_client_hangs() -> None:
    engine, clock, hanging, let_go = hanging_engine(None)
    handle = engine.submit(generate((3, 1)))
    assert hanging.wait(300)
    clock.advance(10_000)
    engine.check_deadlines()
    assert handle.outcome is None and engine.dead is None
    let_go.set()
    handle.wait(300)
    engine.stop()


def test_stop_answers_what_is_under_way() -> None:
    gate = threading.Event()
    with running_engine(fake={"on_collect": lambda plan: gate.wait(300)}) as (engine, _):
        handles = [engine.submit(generate((i, 1))) for i in range(4)]
        stopper = threading.Thread(target=engine.stop)
        stopper.start()
        for handle in handles:
            with pytest.raises(NotReadyError):
                handle.wait(300)
        gate.set()
        stopper.join(300)
        assert not stopper.is_alive()
        with pytest.raises(NotReadyError):
            engine.submit(generate((9, 1)))


def test_drain_answers_what_was_accepted_and_refuses_the_rest() -> None:
    gate = threading.Event()

    async def drain(engine: Engine) -> bool:
        handles = [engine.submit(generate((i, 1))) for i in range(20)]
        draining = asyncio.create_task(engine.drain(300))
        await asyncio.sleep(0)
        with pytest.raises(NotReadyError):
            engine.submit(generate((9, 1)))
        gate.set()
        for handle in handles:
            await handle.result()
        return await draining

    with running_engine(fake={"on_collect": lambda plan: gate.wait(300)}) as (engine, _):
        assert asyncio.run(drain(engine))
        assert engine.stats().idle and engine.stats().draining


def test_drain_gives_up_in_time() -> None:
    gate = threading.Event()
    with running_engine(fake={"on_collect": lambda plan: gate.wait(300)}) as (engine, _):
        engine.submit(generate((3, 1)))
        assert not asyncio.run(engine.drain(0.01))
        gate.set()


def test_threads_end_with_the_engine() -> None:
    before = set(threading.enumerate())  # some of an earlier test's may be about to end
    for _ in range(10):
        with running_engine() as (engine, _):
            engine.submit(generate((3, 1))).wait(300)
    assert not set(threading.enumerate()) - before
