"""T7 on virtual time: a busy tenant does not slow a quiet one; the control knows no tenants and must fail."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, StepPlan
from chorus_server.engine.requests import Request
from chorus_server.engine.scheduler.fair_queue import FairQueue
from tests.server.engine.engine_tools import generate
from tests.server.engine.virtual_time import Simulation, quantile

LADDER = Ladder(
    input_buckets=((1, 32), (2, 32), (4, 32), (8, 32)),
    blocks=(BlockShape(32, 32, 16),),
    score_buckets=((2, 4),),
)
SECONDS = 30.0


@dataclass(frozen=True)
class Measured:
    quiet_p99: float
    answers: int


def request(rng: random.Random, tenant: str, least: int) -> Request:
    text = tuple(rng.randrange(3, 900) for _ in range(rng.randrange(8, 31)))
    return generate((*text, 1), tenant=tenant, max_new_tokens=32, min_new_tokens=least)


def measure(*, noisy: bool, quiet_tenants: int, know_tenants: bool = True) -> Measured:
    """200 requests of the noisy tenant always wait; each quiet tenant sends one about every 100 ms."""
    rng = random.Random(7)
    sim = Simulation(LADDER, EngineConfig(), know_tenants)

    def send_another(done: Request) -> None:
        if done.origin.tenant == "noisy":
            sim.submit(request(rng, "noisy", rng.randrange(4, 32)))

    sim.on_over = send_another
    arrivals = [(0.0, request(rng, "noisy", rng.randrange(4, 32))) for _ in range(200 if noisy else 0)]
    for tenant in range(quiet_tenants):
        at = 0.5 + 0.003 * tenant
        while at < SECONDS - 2:
            arrivals.append((at, request(rng, f"quiet{tenant}", 30)))
            at += 0.1 + 0.004 * rng.random()
    sim.run(arrivals, until=SECONDS)
    waits = [seconds for done, seconds, _ in sim.served if done.origin.tenant.startswith("quiet")]
    return Measured(quantile(waits, 0.99), len(sim.served))


@pytest.mark.parametrize("quiet_tenants", [1, 7])
def test_a_quiet_tenant_hardly_notices_a_busy_one(quiet_tenants: int) -> None:
    alone = measure(noisy=False, quiet_tenants=quiet_tenants)
    shared = measure(noisy=True, quiet_tenants=quiet_tenants)
    control = measure(noisy=True, quiet_tenants=quiet_tenants, know_tenants=False)
    assert shared.quiet_p99 <= 1.5 * alone.quiet_p99
    assert control.quiet_p99 > 5 * alone.quiet_p99, "one line for all must fail this test"
    assert shared.answers >= 0.97 * control.answers


def usual_seconds(plan: StepPlan) -> float:
    """The base that ships on one core, in bf16."""
    return 0.0174 if isinstance(plan, DecodePlan) else 0.002 + 0.00005 * plan.tokens


def usual(*, noisy: bool, quiet_tenants: int, know_tenants: bool = True) -> Measured:
    """The shapes of a CPU, and what `benchmarks/serving/fairness.py` sends: a quiet tenant asks every 300 ms,
    and its answer takes four decode steps, in which a noisy tenant's slots come free."""
    rng, seconds = random.Random(7), 12.0
    sim = Simulation(build_ladder(), EngineConfig(), know_tenants, cost=usual_seconds)

    def asked(tenant: str, least: int) -> Request:
        text = tuple(rng.randrange(3, 900) for _ in range(rng.randrange(34, 48)))
        return generate((*text, 1), tenant=tenant, max_new_tokens=16, min_new_tokens=least)

    def send_another(done: Request) -> None:
        if done.origin.tenant == "noisy":
            sim.submit(asked("noisy", rng.randrange(2, 17)))

    sim.on_over = send_another
    arrivals = [(0.0, asked("noisy", rng.randrange(2, 17))) for _ in range(200 if noisy else 0)]
    for tenant in range(quiet_tenants):
        at = 0.5 + 0.003 * tenant
        while at < seconds - 1:
            arrivals.append((at, asked(f"quiet{tenant}", 16)))
            at += 0.3 + 0.012 * rng.random()
    sim.run(arrivals, until=seconds)
    waits = [waited for done, waited, _ in sim.served if done.origin.tenant.startswith("quiet")]
    return Measured(quantile(waits, 0.99), len(sim.served))


@pytest.mark.parametrize("quiet_tenants", [1, 7])
def test_a_busy_tenant_stays_busy_while_its_slots_come_free(
    quiet_tenants: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = usual(noisy=False, quiet_tenants=quiet_tenants)
    shared = usual(noisy=True, quiet_tenants=quiet_tenants)
    assert shared.quiet_p99 <= 1.5 * alone.quiet_p99
    if quiet_tenants == 1:
        one_line = usual(noisy=True, quiet_tenants=1, know_tenants=False)
        assert shared.answers >= 0.97 * one_line.answers
        monkeypatch.setattr(FairQueue, "waiting", lambda queue, tenant: 0)
        control = usual(noisy=True, quiet_tenants=1)
        assert control.quiet_p99 > 1.7 * alone.quiet_p99, "by the slots that it holds it is soon a quiet one"


def test_a_quiet_tenant_finds_a_slot_when_all_others_started_together() -> None:
    def wait(reserved_slots: int) -> float:
        config = EngineConfig(reserved_slots=reserved_slots)
        sim = Simulation(LADDER, config)
        rng = random.Random(3)
        sim.run([(0.0, request(rng, "quiet", 30))])
        for _ in range(60):
            sim.submit(request(rng, "noisy", 31))
        late = request(rng, "quiet", 30)
        sim.run([(0.04, late)])
        return next(seconds for done, seconds, _ in sim.served if done is late)

    assert wait(reserved_slots=1) < 0.8 * wait(reserved_slots=0)
