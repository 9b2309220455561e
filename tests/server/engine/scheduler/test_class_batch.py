"""Interactive requests beside a batch of the same tenant, on virtual time. The control leaves no room."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Set
from dataclasses import replace

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, PrefillPlan, ScorePlan, StepPlan
from chorus_server.engine.requests import Request
from chorus_server.engine.scheduler import core, prefill_decode_policy
from chorus_server.engine.scheduler.batching import Batcher
from chorus_server.engine.scheduler.fair_queue import FairQueue, Waiting
from chorus_server.engine.scheduler.halves import Halved
from chorus_server.engine.scheduler.prefill_decode_policy import PrefillDecodePolicy
from chorus_server.engine.scheduler.step_times import StepTimes
from chorus_server.engine.scheduler.tickets import Ticket
from tests.server.engine.engine_tools import generate, score
from tests.server.engine.virtual_time import Simulation, quantile

LADDER = Ladder(input_buckets=((1, 32), (4, 32)), blocks=(BlockShape(32, 32, 16),), score_buckets=((4, 16),))
SECONDS = 20.0
UNDER_WAY = 256


def step_seconds(plan: StepPlan) -> float:
    if isinstance(plan, DecodePlan):
        return 0.002 * plan.tokens
    half = plan.encoded if isinstance(plan, ScorePlan) else scores(plan)
    return 0.005 if half else 0.01


def scores(plan: StepPlan) -> bool:
    """Whether it is a score step, or a half of one."""
    return isinstance(plan, ScorePlan) or (isinstance(plan, PrefillPlan) and not plan.admissions)


def asked(kind: str, rng: random.Random, priority: str) -> Request:
    text = (*(rng.randrange(3, 900) for _ in range(8)), 1)
    if kind == "label":
        return score(text, targets=[[5, 1], [6, 1]], priority=priority)
    return generate(text, max_new_tokens=30, min_new_tokens=30, priority=priority)


def measured(kind: str, batch: str | None) -> tuple[float, int]:
    """Seconds that 99 % of the interactive requests of a kind take at most, and how many of the batch, which
    is of a kind too, are answered."""
    rng, done = random.Random(7), 0
    sim = Simulation(LADDER, EngineConfig(), cost=step_seconds)

    def another(over: Request) -> None:
        nonlocal done
        if over.origin.priority == "batch":
            done += 1
            sim.submit(asked(batch or kind, rng, "batch"))

    sim.on_over = another
    arrivals = [(0.0, asked(batch or kind, rng, "batch")) for _ in range(UNDER_WAY if batch else 0)]
    at = 1.0
    while at < SECONDS - 2:
        arrivals.append((at, asked(kind, rng, "interactive")))
        at += 0.1 + 0.03 * rng.random()
    sim.run(arrivals, until=SECONDS)
    waits = [seconds for over, seconds, _ in sim.served if over.origin.priority == "interactive"]
    return quantile(waits, 0.99), done


@pytest.mark.parametrize("kind", ["label", "text"])
@pytest.mark.parametrize("batch", ["label", "text"])
def test_interactive_requests_wait_for_one_step_of_a_batch(
    kind: str, batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arrival is seen when a step ends, so what is left of that step does not count here."""
    alone, _ = measured(kind, None)
    beside, done = measured(kind, batch)
    assert beside <= 1.001 * alone
    monkeypatch.setattr(core, "_MOMENT_SECONDS", -1.0)
    monkeypatch.setattr(prefill_decode_policy, "INTERACTIVE_SHARE", 0)
    monkeypatch.setattr(PrefillDecodePolicy, "_batch_of", staticmethod(lambda block, tenants: False))
    control, most_done = measured(kind, batch)
    assert control >= 1.2 * beside, "steps of a batch between and behind those of others must fail this test"
    assert done >= 0.4 * most_done


def test_a_batch_goes_on_beside_texts_that_never_end() -> None:
    """Its steps get a ninth of the time for which interactive requests decode."""
    rng, seconds = random.Random(7), {"decode": 0.0, "score": 0.0}

    def cost(plan: StepPlan) -> float:
        if scores(plan) or isinstance(plan, DecodePlan):
            seconds["score" if scores(plan) else "decode"] += step_seconds(plan)
        return step_seconds(plan)

    def another(over: Request) -> None:
        kind = "label" if over.origin.priority == "batch" else "text"
        sim.submit(asked(kind, rng, over.origin.priority))

    sim = Simulation(LADDER, EngineConfig(), cost=cost, on_over=another)
    texts = [(0.0, asked("text", rng, "interactive")) for _ in range(16)]
    sim.run(texts + [(0.0, asked("label", rng, "batch")) for _ in range(UNDER_WAY)], until=SECONDS)
    assert 0.1 * seconds["decode"] <= seconds["score"] <= 0.125 * seconds["decode"]


LONG = replace(LADDER, blocks=(BlockShape(32, 2000, 4), *LADDER.blocks))


def longest_wait(who: str) -> tuple[float, int]:
    """Seconds that a short interactive text waits at most while its own tenant, or another one, has a long
    text under way and a batch of labels; and how many of the batch are answered."""
    rng, done = random.Random(7), 0
    sim = Simulation(
        LONG,
        EngineConfig(),
        cost=lambda plan: 5 * step_seconds(plan) if scores(plan) else step_seconds(plan),
    )

    def short() -> Request:
        request = generate(
            (*(rng.randrange(3, 900) for _ in range(8)), 1), max_new_tokens=2, min_new_tokens=2
        )
        return replace(request, origin=replace(request.origin, tenant=who))

    def another(over: Request) -> None:
        nonlocal done
        if over.origin.priority == "batch":
            done += 1
            sim.submit(asked("label", rng, "batch"))
        else:
            sim.submit(short())

    sim.on_over = another
    long = generate((5, 1), max_new_tokens=1900, min_new_tokens=1900)
    arrivals = [(0.0, asked("label", rng, "batch")) for _ in range(UNDER_WAY)]
    sim.run([*arrivals, (0.0, long), *((0.0, short()) for _ in range(4))], until=4.0)
    return max(seconds for over, seconds, _ in sim.served if over.origin.priority == "interactive"), done


@pytest.mark.parametrize("who", ["a", "other"])
def test_a_batch_that_waits_for_its_tenants_texts_holds_up_nobody_else(
    who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, done = longest_wait(who)
    assert waited < 0.1 and done >= 8
    with monkeypatch.context() as patch:
        patch.setattr(Batcher, "head", first_or_none)
        control, _ = longest_wait(who)
        assert control > 0.4, "a batch that stands before all others must fail this test"


def first_or_none(self: Batcher, held_back: Set[str]) -> Waiting[Ticket] | None:
    head = self._queue.head()
    return None if head is None or (head.priority == "batch" and head.tenant in held_back) else head


def test_a_tenant_whose_batch_waits_saves_up_no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    waited, _ = longest_wait("other")
    monkeypatch.setattr(FairQueue, "forgo", lambda self, tenant: None)
    control, _ = longest_wait("other")
    assert waited < 0.1 and control > 0.4


@pytest.mark.parametrize("reserved_slots", [1, 0])
def test_a_batch_of_long_texts_leaves_a_slot_even_if_all_of_it_begins_in_one_step(
    reserved_slots: int,
) -> None:
    """Else who is interactive waits until one is done, half a second. The control keeps no slot free."""
    ladder = replace(LADDER, blocks=(BlockShape(32, 256, 4),))
    sim = Simulation(ladder, EngineConfig(reserved_slots=reserved_slots), cost=step_seconds)

    def text(tokens: int, priority: str) -> Request:
        return generate((5, 1), max_new_tokens=tokens, min_new_tokens=tokens, priority=priority)

    def another(over: Request) -> None:
        if over.origin.priority == "batch":
            sim.submit(text(250, "batch"))

    sim.on_over = another
    batch = [(0.0, text(250, "batch")) for _ in range(16)]
    sim.run([*batch, *((0.1 * at, text(4, "interactive")) for at in range(30))], until=4.0)
    waits = [seconds for over, seconds, _ in sim.served if over.origin.priority == "interactive"]
    assert len(waits) == 30
    assert max(waits) < 0.05 if reserved_slots else max(waits) > 0.3


def by_row(plan: StepPlan) -> float:
    """A device that takes 4 ms for one row and 10 for four, half of it to encode them."""
    if isinstance(plan, DecodePlan):
        return 0.001 * plan.tokens
    both = isinstance(plan, ScorePlan) and not plan.encoded
    return (1.0 if both else 0.5) * (0.002 + 0.002 * plan.bucket[0])


def waits_beside(batch: str, cost: Callable[[StepPlan], float], seconds: float = 4.0) -> tuple[float, int]:
    """Seconds from the instant at which a label is asked for to its answer, of 99 %, beside a batch of a
    kind; and how many of the batch are answered."""
    rng, due, waits, done = random.Random(7), dict[str, float](), list[float](), 0
    sim = Simulation(LADDER, EngineConfig(), cost=cost)

    def another(over: Request) -> None:
        nonlocal done
        if over.origin.priority == "batch":
            done += 1
            sim.submit(asked(batch, rng, "batch"))
        else:
            waits.append(sim.clock() - due[over.origin.request_id])

    sim.on_over = another
    arrivals, start = [(0.0, asked(batch, rng, "batch")) for _ in range(UNDER_WAY)], sim.clock()
    for at in range(int(10 * seconds) - 10):
        arrivals.append((0.5 + 0.1 * at + 0.05 * rng.random(), asked("label", rng, "interactive")))
        due[arrivals[-1][1].origin.request_id] = start + arrivals[-1][0]
    sim.run(arrivals, until=seconds)
    assert len(waits) >= 5 * seconds
    return quantile(waits[1:], 0.99), done  # nobody reckons with the first


@pytest.mark.parametrize("batch", ["label", "text"])
def test_while_interactive_requests_come_the_steps_of_a_batch_are_short(
    batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label waits for half as long as it takes itself, at most: for one row that is encoded or scored, or
    for a few tokens; and is in a step of its own."""
    own = by_row(ScorePlan(0, (1, 32), (), (), tokens=32))
    waited, _ = waits_beside(batch, by_row)
    assert waited <= 1.5 * own
    if batch == "label":
        with monkeypatch.context() as patch:
            patch.setattr(Halved, "halves", staticmethod(lambda step: False))
            control, _ = waits_beside(batch, by_row)
            assert control > 1.9 * own, "whole steps of one row must fail this test"
    monkeypatch.setattr(StepTimes, "short", lambda self, shape, needed, bearable: True)
    monkeypatch.setattr(StepTimes, "bearable_tokens", lambda self, shape, mode, most: most)
    control, _ = waits_beside(batch, by_row)
    assert control > 1.7 * own, "steps of many rows or tokens must fail this test"


@pytest.mark.parametrize("batch", ["label", "text"])
def test_where_short_steps_take_as_long_a_batch_keeps_its_whole_ones(
    batch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alike(plan: StepPlan) -> float:
        if isinstance(plan, DecodePlan):
            return 0.001
        return 0.005 if isinstance(plan, ScorePlan) and not plan.encoded else 0.0025

    _, done = waits_beside(batch, alike)
    monkeypatch.setattr(StepTimes, "short", lambda self, shape, needed, bearable: shape == needed)
    _, control = waits_beside(batch, alike)
    monkeypatch.undo()
    monkeypatch.setattr(core, "_MOMENT_SECONDS", -1.0)
    _, most = waits_beside(batch, alike)
    assert done >= 0.9 * most and control < 0.7 * most


def test_a_pause_in_one_step_keeps_no_later_one_short() -> None:
    """The system may stop the process for a second, or a program may run for the first time."""
    scored = 0

    def paused_at(which: int) -> Callable[[StepPlan], float]:
        nonlocal scored
        scored = 0

        def cost(plan: StepPlan) -> float:
            nonlocal scored
            if isinstance(plan, ScorePlan) and plan.bucket[0] > 1:
                scored += 1
            return 0.0025 + (scored == which)

        return cost

    _, most = waits_beside("label", paused_at(-1), 6.0)
    _, done = waits_beside("label", paused_at(100), 6.0)
    assert done >= 0.75 * most


def test_the_time_of_a_step_that_ran_beside_another_counts_for_nothing() -> None:
    """On a CPU an encoding may be over when the decode step before it is: then it seems to take no time, and
    no step of a batch could be as short."""

    def beside(plan: StepPlan) -> float:
        if isinstance(plan, DecodePlan):
            return 0.001 * plan.tokens
        return 0.0 if sim.scheduler.stats().in_flight_steps > 1 else 0.02

    rng, sim = random.Random(7), Simulation(LADDER, EngineConfig(), cost=beside)
    texts = [(0.03 * at, asked("text", rng, "interactive")) for at in range(40)]
    sim.run([*texts, *((1.3, asked("text", rng, "batch")) for _ in range(16))])
    tokens = [plan.tokens for plan in sim.executor.plans if isinstance(plan, DecodePlan)]
    assert min(tokens[-8:]) > 1


def test_a_batch_alone_takes_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered() -> int:
        rng, done = random.Random(7), 0

        def another(over: Request) -> None:
            nonlocal done
            done += 1
            sim.submit(asked("label", rng, "batch"))

        sim = Simulation(LADDER, EngineConfig(), cost=by_row, on_over=another)
        first = [(0.0, asked("label", rng, "interactive"))]
        sim.run(first + [(2.0, asked("label", rng, "batch")) for _ in range(UNDER_WAY)], until=4.0)
        return done

    done = answered()
    monkeypatch.setattr(core, "_MOMENT_SECONDS", math.inf)
    assert answered() < 0.8 * done, "the control: steps kept short for nobody"
