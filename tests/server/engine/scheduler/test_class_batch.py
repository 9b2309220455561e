"""Interactive requests beside a batch of the same tenant, on virtual time. The control leaves no room."""

from __future__ import annotations

import random

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, PrefillPlan, StepPlan
from chorus_server.engine.requests import Request
from chorus_server.engine.scheduler import core, prefill_decode_policy
from chorus_server.engine.scheduler.prefill_decode_policy import PrefillDecodePolicy
from tests.server.engine.engine_tools import generate, score
from tests.server.engine.virtual_time import Simulation, quantile

LADDER = Ladder(input_buckets=((1, 32), (4, 32)), blocks=(BlockShape(32, 32, 16),), score_buckets=((4, 16),))
SECONDS = 20.0
UNDER_WAY = 256


def step_seconds(plan: StepPlan) -> float:
    return 0.002 * plan.tokens if isinstance(plan, DecodePlan) else 0.01


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
        if not isinstance(plan, PrefillPlan):
            seconds["decode" if isinstance(plan, DecodePlan) else "score"] += step_seconds(plan)
        return step_seconds(plan)

    def another(over: Request) -> None:
        kind = "label" if over.origin.priority == "batch" else "text"
        sim.submit(asked(kind, rng, over.origin.priority))

    sim = Simulation(LADDER, EngineConfig(), cost=cost, on_over=another)
    texts = [(0.0, asked("text", rng, "interactive")) for _ in range(16)]
    sim.run(texts + [(0.0, asked("label", rng, "batch")) for _ in range(UNDER_WAY)], until=SECONDS)
    assert 0.1 * seconds["decode"] <= seconds["score"] <= 0.125 * seconds["decode"]
