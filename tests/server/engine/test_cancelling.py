"""Requests that leave: queued, loading, in prefill, decoding. Everything they held comes back, quickly."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.plans import DecodePlan, PrefillPlan, StepPlan
from chorus_server.engine.requests import FinishedEvent, PromptHandle
from chorus_server.engine.scheduler.tickets import TicketPhase
from chorus_server.engine.thread.engine import Engine
from chorus_server.errors import CancelledError, DeadlineExceededError
from tests.server.api.api_harness import eventually
from tests.server.engine.engine_tools import DictSource, generate, running_engine
from tests.server.engine.virtual_time import Simulation

LONG = {"max_new_tokens": 30, "min_new_tokens": 30}


class Stepper:
    """Holds the engine in front of each dispatch until told to go on."""

    def __init__(self) -> None:
        self.at = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.free = False

    def __call__(self, plan: StepPlan) -> None:
        if not self.free:
            self.at.release()
            assert self.go.acquire(timeout=300)

    def until(self, steps: int) -> None:
        for _ in range(steps):
            assert self.at.acquire(timeout=300)
            self.go.release()
        assert self.at.acquire(timeout=300)

    def release(self) -> None:
        self.free = True
        self.go.release()


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_a_cancelled_request_frees_everything(steps: int) -> None:
    stepper = Stepper()
    with running_engine(fake={"on_dispatch": stepper}) as (engine, _):
        handle = engine.submit(generate((3, 1), **LONG))
        stepper.until(steps)
        handle.cancel("closed the window")
        handle.cancel("again")
        with pytest.raises(CancelledError, match="closed the window"):
            handle.wait(0)
        stepper.release()
        assert engine.wait_idle(300)
        assert engine.stats().idle


def test_a_slot_is_free_within_one_decode_step() -> None:
    sim = Simulation(config=EngineConfig(max_in_flight_steps=1))
    ticket = sim.submit(generate((3, 1), **LONG))
    left_at: list[int] = []

    def leave() -> None:
        assert ticket.phase is TicketPhase.DECODING
        left_at.append(len(sim.executor.plans))
        sim.give_up(ticket)

    sim.at(0.02, leave)
    sim.run()
    after = sim.executor.plans[left_at[0] :]
    assert [plan.release for plan in after if isinstance(plan, DecodePlan)] == [(0,)]
    assert sim.scheduler.stats().slots_in_use == 0
    staying = Simulation(config=EngineConfig(max_in_flight_steps=1))
    staying.submit(generate((3, 1), **LONG))
    staying.run()
    assert len(staying.executor.plans) > len(sim.executor.plans) + 2, "who stays takes longer"


def test_queued_and_loading_requests_leave_without_a_trace() -> None:
    source = DictSource()
    source.gate = threading.Event()
    prompt = source.add("slow", 2)
    with running_engine(source=source) as (engine, executor):
        handles = [engine.submit(generate(prompt, (i, 1))) for i in range(3)]
        assert source.fetching.acquire(timeout=300)
        eventually(lambda: engine.stats().loading == 3)  # the first may be fetched before the last is seen
        for handle in handles:
            handle.cancel()
        source.gate.set()
        assert engine.wait_idle(300)
        assert engine.stats().idle and not executor.plans
        assert source.fetched == ["slow"], "one fetch, whoever asks"


def test_a_deadline_ends_a_request_wherever_it_is() -> None:
    for at in (0.0, 0.001, 0.02):
        sim = Simulation()
        sim.run([(0.0, generate((3, 1), deadline_seconds=at, **LONG)), (0.0, generate((4, 1), **LONG))])
        assert [code for _, code in sim.failed] == ["deadline_exceeded"]
        assert len(sim.served) == 1
        sim.scheduler.check_idle()


def test_a_deadline_is_kept_while_a_step_hangs() -> None:
    hang = threading.Event()

    def block(plan: StepPlan) -> None:
        if isinstance(plan, PrefillPlan):
            assert hang.wait(300)

    config = EngineConfig(watchdog_interval_seconds=0.01, check_integrity=True)
    with running_engine(config=config, fake={"on_collect": block}) as (engine, _):
        handle = engine.submit(generate((3, 1), deadline_seconds=0.05))
        with pytest.raises(DeadlineExceededError):
            handle.wait(300)
        assert not hang.is_set()
        hang.set()
        assert engine.wait_idle(300)
        assert engine.stats().idle


def test_a_thousand_clients_leave_while_streaming() -> None:
    with running_engine() as (engine, _):
        asyncio.run(_leave_in_crowds(engine))
        assert engine.wait_idle(300)
        assert engine.stats().idle
        lines = engine.journal.entries()
        assert sum(line["event"] == "accepted" for line in lines) == 1000
        assert sum(line["event"] == "outcome" for line in lines) == 1000


async def _leave_in_crowds(engine: Engine) -> None:
    async def one(number: int) -> None:
        request = generate((number % 900, 1), max_new_tokens=20, min_new_tokens=20, stream=True)
        handle = engine.submit(request)
        async for _ in handle:
            if number % 3:
                break
        handle.cancel()

    for start in range(0, 1000, 250):
        await asyncio.gather(*(one(start + offset) for offset in range(250)))


def test_a_failed_load_fails_its_own_requests_only() -> None:
    source = DictSource()
    good = source.add("good", 2)
    source.values["infinite"] = np.full((2, 3), np.inf, np.float32)
    source.values["short"] = np.ones((1, 3), np.float32)
    source.broken["torn"] = OSError("disk")
    with running_engine(source=source) as (engine, _):
        bad = {
            name: engine.submit(generate(PromptHandle(name, 2), (4, 1)))
            for name in ("infinite", "short", "torn", "nowhere")
        }
        fine = engine.submit(generate(good, (4, 1)))
        assert isinstance(fine.wait(300), FinishedEvent)
        codes = {}
        for name, handle in bad.items():
            with pytest.raises(Exception) as caught:
                handle.wait(300)
            codes[name] = caught.value.code  # type: ignore[attr-defined]
        assert codes == {
            "infinite": "prompt_not_finite",
            "short": "internal",
            "torn": "prompt_unreadable",
            "nowhere": "not_found",
        }
        assert engine.wait_idle(300)
        assert engine.stats().idle
