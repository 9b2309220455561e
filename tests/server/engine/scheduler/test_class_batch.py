"""Interactive requests beside a batch of the same tenant, on virtual time. The control leaves no room."""

from __future__ import annotations

import random

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, StepPlan
from chorus_server.engine.requests import Request
from chorus_server.engine.scheduler import core
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


def measured(kind: str, *, batch: bool) -> tuple[float, int]:
    """Seconds that 99 % of the interactive requests take at most, and how many of the batch are answered."""
    rng, done = random.Random(7), 0
    sim = Simulation(LADDER, EngineConfig(), cost=step_seconds)

    def another(over: Request) -> None:
        nonlocal done
        if over.origin.priority == "batch":
            done += 1
            sim.submit(asked(kind, rng, "batch"))

    sim.on_over = another
    arrivals = [(0.0, asked(kind, rng, "batch")) for _ in range(UNDER_WAY if batch else 0)]
    at = 1.0
    while at < SECONDS - 2:
        arrivals.append((at, asked(kind, rng, "interactive")))
        at += 0.1 + 0.03 * rng.random()
    sim.run(arrivals, until=SECONDS)
    waits = [seconds for over, seconds, _ in sim.served if over.origin.priority == "interactive"]
    return quantile(waits, 0.99), done


@pytest.mark.parametrize(("kind", "most"), [("label", 1.0), ("text", 2.0)])
def test_interactive_requests_wait_for_one_step_of_a_batch(
    kind: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arrival is seen when a step ends, so what is left of that step does not count here."""
    alone, _ = measured(kind, batch=False)
    beside, done = measured(kind, batch=True)
    assert beside <= 1.001 * most * alone
    monkeypatch.setattr(core, "_MOMENT_SECONDS", -1.0)
    control, most_done = measured(kind, batch=True)
    assert control >= 1.2 * beside, "steps that queue behind others must fail this test"
    assert done >= 0.95 * most_done
