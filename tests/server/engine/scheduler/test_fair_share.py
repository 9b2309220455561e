"""T7 on virtual time: a busy tenant does not slow a quiet one; the control knows no tenants and must fail."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.handle import RequestHandle
from chorus_server.engine.ladder import build_ladder
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, StepPlan
from chorus_server.engine.requests import FinishedEvent, Request
from chorus_server.engine.scheduler.fair_queue import FairQueue, Waiting
from chorus_server.engine.scheduler.late_answers import LateAnswers
from chorus_server.engine.scheduler.prefill_decode_policy import PrefillDecodePolicy
from chorus_server.engine.scheduler.tickets import Ticket
from tests.server.engine.engine_tools import FakeClock, generate, score
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


HOST_SECONDS = 0.00095
"""What the host does for an answer and the next request of its caller: measured, like the steps below."""


@dataclass
class OneCore(Simulation):
    """The base that ships on one core, in bf16, over HTTP. While the host has work left, a step has half of
    the core, so it takes longer by as much as was left."""

    left: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cost = self.step_seconds

    def step_seconds(self, plan: StepPlan) -> float:
        """A step of four tokens, or of so many encoded ones, beside the host."""
        alone = 0.0102 if isinstance(plan, DecodePlan) else 0.0025 + 0.0000255 * plan.tokens
        shared = min(self.left, alone)
        self.left -= shared
        return alone + shared


def usual(*, noisy: bool, quiet_tenants: int, know_tenants: bool = True) -> Measured:
    """The shapes of a CPU, and what `benchmarks/serving/fairness.py` sends: a quiet tenant asks every 300 ms,
    and its answer takes four decode steps, in which a noisy tenant's slots come free."""
    rng, seconds = random.Random(7), 12.0
    sim = OneCore(build_ladder(), EngineConfig(), know_tenants)

    def asked(tenant: str, least: int) -> Request:
        text = tuple(rng.randrange(3, 900) for _ in range(rng.randrange(34, 48)))
        return generate((*text, 1), tenant=tenant, max_new_tokens=16, min_new_tokens=least)

    def send_another(done: Request) -> None:
        sim.left += HOST_SECONDS
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


def test_answers_of_a_busy_tenant_wait_while_a_quiet_one_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = usual(noisy=True, quiet_tenants=1)
    monkeypatch.setattr(PrefillDecodePolicy, "yields_to_quiet", lambda policy, tenant: False)
    control = usual(noisy=True, quiet_tenants=1)
    assert control.quiet_p99 > 1.1 * shared.quiet_p99, "the host hands them over in the quiet tenant's time"


def test_scores_share_their_steps() -> None:
    """Tenants that only score hold no slots. If a quiet one had steps of its own, a fifth of the answers
    would be lost where it always has a request."""

    def answers(know_tenants: bool = True) -> int:
        rng = random.Random(7)
        sim = OneCore(build_ladder(), EngineConfig(), know_tenants)

        def ask(tenant: str) -> None:
            text = tuple(rng.randrange(3, 900) for _ in range(rng.randrange(34, 48)))
            sim.submit(score((*text, 1), targets=[(5, 1), (6, 7, 1)], tenant=tenant))

        sim.on_over = lambda done: ask(done.origin.tenant)
        for tenant in ["noisy"] * 60 + ["quiet"]:
            ask(tenant)
        sim.run(until=2.0)
        return len(sim.served)

    assert answers() >= 0.97 * answers(know_tenants=False)


def test_whether_a_waiting_tenant_may_join_a_step_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask of each of its 256 requests would take the quiet tenant's time."""
    asked: list[str] = []
    plainly = PrefillDecodePolicy.may_join

    def may_join(policy: PrefillDecodePolicy, head: Waiting[Ticket], tenant: str) -> bool:
        asked.append(tenant)
        return plainly(policy, head, tenant)

    monkeypatch.setattr(PrefillDecodePolicy, "may_join", may_join)
    rng, sim = random.Random(7), Simulation(LADDER)
    for tenant in ["quiet"] + ["noisy"] * 300:
        sim.submit(request(rng, tenant, 4))
    sim.scheduler.plan()
    assert asked == ["noisy"]


def test_an_answer_does_not_wait_past_its_deadline() -> None:
    clock, over = FakeClock(), list[str]()
    late = LateAnswers(lambda ticket, outcome: over.append(ticket.key), rounds=4, clock=clock)
    sim = Simulation(LADDER)

    def keep(deadline: float | None) -> str:
        asked = request(random.Random(1), "noisy", 4)
        ticket = Ticket(
            asked, sim.fitter.fit(asked), RequestHandle("a", lambda error: None), 0, 0.0, deadline
        )
        late.keep(ticket, FinishedEvent((), 0, ticket.timings(0.0)))
        return ticket.key

    late.decoded(0.25)
    soon, ample, endless = keep(clock() + 1.9), keep(clock() + 2.1), keep(None)
    assert over == [soon], "four steps of twice 0.25 s"
    late.hand_over(quiet_decodes=True)
    assert over == [soon]
    clock.now += 0.3  # a prefill step
    late.hand_over(quiet_decodes=True)
    assert over == [soon, ample]
    for _ in range(4):
        assert over == [soon, ample]
        late.decoded(0.25)
        late.hand_over(quiet_decodes=True)
    assert over == [soon, ample, endless]
    keep(None)
    late.hand_over(quiet_decodes=False)
    assert not late


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


LONG = Ladder(
    input_buckets=((1, 32), (8, 32), (1, 256), (8, 256)),
    blocks=(BlockShape(32, 32, 16), BlockShape(256, 256, 8), BlockShape(256, 64, 8)),
    score_buckets=(),
)


def beside_long_texts(new_tokens: tuple[int, ...], every: float, *, quiet_alone: bool = False) -> Measured:
    """A tenant with a backlog of texts of 250 tokens and, in turn, so many new ones, in blocks whose steps
    take four times as long as those of the third, and a quiet one that asks for 16 tokens every so many
    seconds. `answers` are the backlog's."""
    rng, seconds = random.Random(7), 12.0

    def cost(plan: StepPlan) -> float:
        if isinstance(plan, DecodePlan):
            return 0.040 if plan.block else 0.010
        return 0.0025 + 0.0000255 * plan.tokens

    def asked(tenant: str, length: int, new: int) -> Request:
        text = tuple(rng.randrange(3, 900) for _ in range(length))
        return generate((*text, 1), tenant=tenant, max_new_tokens=new, min_new_tokens=new)

    sim = Simulation(LONG, EngineConfig(), cost=cost)
    backlog = [] if quiet_alone else [asked("noisy", 250, new) for new in new_tokens * 200]
    arrivals = [(0.0, each) for each in backlog]
    arrivals += [(0.5 + every * n + 0.01 * rng.random(), asked("quiet", 16, 16)) for n in range(35)]
    sim.run(arrivals, until=seconds)
    waits = [waited for done, waited, _ in sim.served if done.origin.tenant == "quiet"]
    assert len(waits) == 35
    return Measured(quantile(waits, 0.99), len(sim.served) - len(waits))


@pytest.mark.parametrize(("new_tokens", "every"), [((250,), 0.3), ((250, 60), 0.3), ((250,), 0.15)])
def test_long_answers_of_a_busy_tenant_take_no_more_turns_than_a_quiet_ones_steps(
    new_tokens: tuple[int, ...], every: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one shape, and of two, whose blocks may not take turns with each other meanwhile; and where most of
    the steps, but not most of the time, are a quiet tenant's."""
    alone = beside_long_texts(new_tokens, every, quiet_alone=True)
    beside = beside_long_texts(new_tokens, every)
    monkeypatch.setattr(PrefillDecodePolicy, "_blocks_of_quiet", lambda policy, wanting: [])
    control = beside_long_texts(new_tokens, every)
    assert beside.quiet_p99 <= 3 * alone.quiet_p99, "a long step of each shape may come before"
    assert control.quiet_p99 > 4 * alone.quiet_p99, "a step of each block in turn must fail this test"
    assert beside.answers >= 0.97 * control.answers
