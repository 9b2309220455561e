"""Random workloads on virtual time: whatever comes, each request ends once, right, and nothing is left
behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.fake_executor import PlanError, expected_scores, expected_tokens
from chorus_server.engine.requests import (
    FinishedEvent,
    GenerateRequest,
    PromptHandle,
    Request,
    ScoredEvent,
    ScoreRequest,
)
from chorus_server.engine.scheduler.core import Scheduler
from chorus_server.engine.scheduler.steps import PrefillStep, Step
from chorus_server.engine.scheduler.tickets import Ticket
from chorus_server.errors import NotFoundError, OverloadedError
from tests.server.engine.engine_tools import generate, score
from tests.server.engine.virtual_time import Simulation

HANDLES = [PromptHandle(f"p{index}", length) for index, length in enumerate((1, 2, 3, 5, 7, 8, 8, 10))]
PROMPTS: dict[str, Any] = {h.digest: np.ones((h.length, 3), np.float32) for h in HANDLES}
PROMPTS["gone"] = NotFoundError("the prompt is gone")
PROMPTS["infinite"] = np.full((2, 3), np.inf, np.float32)
ODD = [PromptHandle("gone", 2), PromptHandle("infinite", 2)]


@dataclass(frozen=True)
class Arrival:
    at: float
    request: Request
    leaves_after: float | None


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Any, ...]:
    parts: list[Any] = draw(st.lists(st.sampled_from(HANDLES), max_size=2, unique=True))
    if draw(st.integers(0, 15)) == 0:
        parts.append(draw(st.sampled_from(ODD)))
    parts.append((*draw(st.lists(st.integers(3, 900), max_size=20)), 1))
    return tuple(draw(st.permutations(parts)))


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    rest: dict[str, Any] = {
        "tenant": draw(st.sampled_from("abc")),
        "priority": draw(st.sampled_from(("interactive", "batch"))),
        "weight": draw(st.sampled_from((0.5, 1.0, 3.0))),
        "deadline_seconds": draw(st.sampled_from((None, None, None, 0.02, 0.2))),
    }
    request: Request
    if draw(st.integers(0, 3)) == 0:
        targets = draw(
            st.lists(st.lists(st.integers(3, 900), min_size=1, max_size=8), min_size=1, max_size=6)
        )
        request = score(*draw(inputs()), targets=targets, **rest)
    else:
        kind = draw(st.sampled_from(("greedy", "greedy", "greedy", "samples", "beams")))
        settings: dict[str, Any] = {"max_new_tokens": draw(st.integers(1, 12))}
        if kind == "samples":
            settings |= {"n": draw(st.integers(2, 5)), "temperature": 1.0, "seed": draw(st.integers(0, 99))}
        if kind == "beams":
            beams = draw(st.sampled_from((2, 4, 8)))
            settings |= {"num_beams": beams, "n": draw(st.integers(1, beams))}
        request = generate(*draw(inputs()), **settings, **rest)
    leaves = draw(st.one_of(st.none(), st.none(), st.none(), st.floats(0, 0.08)))
    return Arrival(draw(st.floats(0, 0.1)), request, leaves)


configs = st.builds(
    EngineConfig,
    batch_invariant=st.booleans(),
    max_in_flight_steps=st.integers(1, 3),
    decode_tokens_per_dispatch=st.integers(1, 4),
    host_prompt_bytes=st.sampled_from((0, 200, 1 << 20)),
    prefill_token_budget=st.sampled_from((16, 64, 4096)),
    protect_decode_rounds=st.integers(1, 2),
    reserved_slots=st.integers(0, 2),
    loader_threads=st.integers(1, 2),
)


def check_outcome(request: Request, outcome: object, vocab_size: int) -> None:
    if isinstance(request, ScoreRequest):
        assert isinstance(outcome, ScoredEvent)
        assert outcome.log_probabilities == pytest.approx(expected_scores(request))
        return
    assert isinstance(request, GenerateRequest) and isinstance(outcome, FinishedEvent)
    got = [sequence.tokens for sequence in outcome.sequences]
    assert got == [expected_tokens(request, vocab_size, place) for place in range(request.sampling.n)]


def run_and_check(
    work: list[Arrival], config: EngineConfig, scheduler_type: type[Scheduler] = Scheduler
) -> None:
    sim = Simulation(config=config, rows=28, prompts=PROMPTS, scheduler_type=scheduler_type)

    refused: set[str] = set()

    def come(arrival: Arrival) -> None:
        try:
            ticket = sim.submit(arrival.request)
        except OverloadedError:
            assert arrival.request.origin.deadline_seconds is not None, (
                "only a deadline can be unmeetable here"
            )
            refused.add(arrival.request.origin.request_id)
            return
        if arrival.leaves_after is not None:
            sim.at(arrival.leaves_after, lambda: sim.give_up(ticket))

    for arrival in work:
        sim.at(arrival.at, lambda arrival=arrival: come(arrival))
    sim.run()
    lines = sim.journal.entries()
    accepted = Counter(line["id"] for line in lines if line["event"] == "accepted")
    outcomes = Counter(line["id"] for line in lines if line["event"] == "outcome")
    ids = Counter(a.request.origin.request_id for a in work if a.request.origin.request_id not in refused)
    assert accepted == outcomes == ids, "each request is accepted once and ends once"
    assert len(sim.served) + len(sim.failed) == len(ids), "each request gives back what it held"
    for request, _, outcome in sim.served:
        check_outcome(request, outcome, sim.executor.vocab_size)
    may_fail = {a.request.origin.request_id for a in work if a.leaves_after is not None}
    for request, code in sim.failed:
        if code in ("not_found", "prompt_not_finite"):
            assert {part.digest for part in request.input if isinstance(part, PromptHandle)} & {
                "gone",
                "infinite",
            }
        elif code == "deadline_exceeded":
            assert request.origin.deadline_seconds is not None
        else:
            assert code == "cancelled" and request.origin.request_id in may_fail
    sim.scheduler.check_idle()
    assert sim.scheduler.stats().idle and sim.admission.permits == 0 and sim.admission.waiting == 0


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(arrivals(), min_size=1, max_size=40), configs)
def test_every_request_ends_once_and_right_and_nothing_is_left(
    work: list[Arrival], config: EngineConfig
) -> None:
    run_and_check(work, config)


def steady_work() -> list[Arrival]:
    """Long outputs and many who leave: enough of everything for each control to show."""
    work = []
    for i in range(60):
        request = generate(HANDLES[i % 8], (i + 3, 1), max_new_tokens=20, min_new_tokens=16)
        work.append(Arrival(0.0005 * i, request, 0.003 * (i % 20) if i % 2 else None))
    return work


class ReusesSlotsTooEarly(Scheduler):
    """Control: a cancelled request's slots are given out before the device was told."""

    def abandon(self, ticket: Ticket) -> None:
        block = ticket.block
        super().abandon(ticket)
        if block is not None:
            self._slots.blocks[block].to_release.clear()


class ForgetsRows(Scheduler):
    """Control: prompt rows are not given back."""

    def absorb(self, step: Step, result: Any) -> None:
        if isinstance(step, PrefillStep) and len(step.tickets) > 1:
            step.acquired = step.acquired[1:]
        super().absorb(step, result)


class FreesRowsEarly(Scheduler):
    """Control: loads are planned for prompts, but left out of the plan."""

    def plan(self) -> Step | None:
        step = super().plan()
        if isinstance(step, PrefillStep) and step.plan.loads:
            object.__setattr__(step.plan, "loads", step.plan.loads[1:])
        return step


class ForgetsHolds(Scheduler):
    """Control: a request that left while it was queued keeps its prompts in the host tier."""

    def abandon(self, ticket: Ticket) -> None:
        ticket.holds.clear()
        super().abandon(ticket)


@pytest.mark.parametrize("broken", [ReusesSlotsTooEarly, ForgetsRows, FreesRowsEarly, ForgetsHolds])
def test_a_broken_scheduler_does_not_pass(broken: type[Scheduler]) -> None:
    run_and_check(steady_work(), EngineConfig())
    with pytest.raises((AssertionError, PlanError, KeyError, IndexError)):
        run_and_check(steady_work(), EngineConfig(), broken)
