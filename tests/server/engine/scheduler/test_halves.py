"""A batch's score step in two halves, on virtual time: what becomes of the second, whatever comes between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chorus_server.engine.config import EngineConfig
from chorus_server.engine.plans import BlockShape, DecodePlan, Ladder, PrefillPlan, ScorePlan, StepPlan
from chorus_server.engine.requests import PromptHandle, Request
from tests.server.engine.engine_tools import generate, score
from tests.server.engine.virtual_time import Simulation

LADDER = Ladder(input_buckets=((1, 32), (4, 32)), blocks=(BlockShape(32, 2000, 2),), score_buckets=((4, 16),))
LONG = 1000
"""Tokens of a text that decodes for two seconds."""

P, Q = PromptHandle("p", 6), PromptHandle("q", 6)
PROMPTS: dict[str, Any] = {each.digest: np.ones((each.length, 3), np.float32) for each in (P, Q)}


def seconds_of(plan: StepPlan) -> float:
    if isinstance(plan, DecodePlan):
        return 0.002 * plan.tokens
    return 0.02 if isinstance(plan, ScorePlan) and not plan.encoded else 0.01


def label(*parts: Any, priority: str = "batch", tenant: str = "a") -> Request:
    return score(*parts, (5, 1), targets=[[5, 1], [6, 1]], priority=priority, tenant=tenant)


def text(*parts: Any, tokens: int = 2, tenant: str = "b") -> Request:
    return generate(*parts, (7, 1), max_new_tokens=tokens, min_new_tokens=tokens, tenant=tenant)


def simulation(rows: int = 64) -> Simulation:
    """One that has seen how long an interactive label takes."""
    sim = Simulation(
        LADDER, EngineConfig(reserved_slots=0), cost=seconds_of, rows=rows, prompts=PROMPTS, load_seconds=0
    )
    for prompt in (P, Q):
        sim.host.put(prompt.digest, PROMPTS[prompt.digest])
    sim.run([(0.0, label(priority="interactive", tenant="b"))])
    return sim


def waited(sim: Simulation, of: Request) -> float:
    return next(seconds for over, seconds, _ in sim.served if over is of)


def halves(sim: Simulation) -> tuple[int, int]:
    """How many steps only encoded, and how many only scored."""
    plans = sim.executor.plans
    return (
        sum(isinstance(plan, PrefillPlan) and not plan.admissions for plan in plans),
        sum(isinstance(plan, ScorePlan) and plan.encoded for plan in plans),
    )


def test_who_finds_no_slot_holds_up_no_half() -> None:
    """Both slots are in use for two seconds, and the next text waits for one."""
    sim, batch = simulation(), label()
    sim.run(
        [
            (0.0, text(tokens=LONG)),
            (0.0, text(tokens=LONG)),
            (0.2, batch),
            (0.205, text(tenant="d")),
        ]
    )
    assert halves(sim) == (1, 1)
    assert waited(sim, batch) < 0.1
    assert sim.scheduler.stats().steps == len(sim.executor.plans)


def test_a_half_does_not_keep_prompt_rows_from_who_waits_for_them() -> None:
    """The table holds one of the two prompts."""
    sim, batch, asks = simulation(rows=8), label(P), text(Q)
    sim.run([(0.0, text(tokens=LONG)), (0.2, batch), (0.205, asks)])
    assert halves(sim) == (1, 1)
    assert waited(sim, asks) < 0.2


@pytest.mark.parametrize("leave", [True, False])
def test_a_half_is_dropped_once_all_have_left(leave: bool) -> None:
    sim = simulation()
    tickets = []
    sim.at(0.2, lambda: tickets.append(sim.submit(label(P))))
    if leave:
        sim.at(0.205, lambda: sim.give_up(tickets[0]))
    sim.run([(0.1, label(priority="interactive", tenant="b"))])
    assert halves(sim) == (1, 0 if leave else 1)
    sim.scheduler.check_idle()


def test_between_the_halves_comes_no_other_batch() -> None:
    """A text waits for a slot before both, so the second batch is what would find a place."""
    sim, first, second = simulation(), label(), label()
    second = replace(second, origin=replace(second.origin, tenant="c"))
    sim.run(
        [
            (0.0, text(tokens=LONG)),
            (0.0, text(tokens=LONG)),
            (0.2, first),
            (0.205, text()),
            (0.205, second),
        ]
    )
    order = [over for over, _, _ in sim.served if over in (first, second)]
    assert order == [first, second]
    assert halves(sim)[0] == halves(sim)[1], "nothing was encoded twice"
