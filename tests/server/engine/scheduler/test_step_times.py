"""How long steps of a shape are taken to last."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from chorus_server.engine.plans import BlockShape, DecodePlan, ScorePlan
from chorus_server.engine.scheduler.step_times import StepTimes
from chorus_server.engine.scheduler.steps import DecodeStep, PrefillStep
from tests.server.engine.engine_tools import FakeClock, score

SHAPE = BlockShape(32, 32, 16)
DECODE = DecodeStep(DecodePlan(0, 0, "plain", 8))


def with_a_label_of(seconds: float, clock: FakeClock) -> StepTimes:
    origin = replace(score((5, 1), targets=[[5, 1]]).origin, priority="interactive")
    ticket: Any = SimpleNamespace(origin=origin, kind="score", fit=SimpleNamespace(nodes=16))
    times = StepTimes(clock)
    times.took(PrefillStep(ScorePlan(0, (1, 32), (), (), tokens=32), (ticket,), (), 0.0), None, seconds)
    return times


def test_a_shape_whose_first_step_took_long_is_soon_tried_again() -> None:
    clock = FakeClock()
    times = with_a_label_of(0.01, clock)
    times.took(DECODE, SHAPE, 8.0)
    assert times.bearable_tokens(SHAPE, "plain", 8) == 1
    clock.now += 13
    assert times.bearable_tokens(SHAPE, "plain", 8) == 8
    for _ in range(5):
        times.took(DECODE, SHAPE, 0.008)
    clock.now += 59
    assert times.bearable_tokens(SHAPE, "plain", 8) == 5
    clock.now += 2
    assert times.bearable_tokens(SHAPE, "plain", 8) == 8


def test_one_step_that_took_long_changes_nothing() -> None:
    times = with_a_label_of(0.01, FakeClock())
    for seconds in (0.008, 0.008, 8.0):
        times.took(DECODE, SHAPE, seconds)
    assert times.bearable_tokens(SHAPE, "plain", 8) == 5
