"""The last hour: what `/metrics` counts, cut into ticks, on a clock of the test's own."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chorus_server.api.last_hour import TICK_SECONDS, TICKS, LastHour, quantile
from chorus_server.api.metrics import Metrics
from chorus_server.api.schemas.operations import TickAnswer
from chorus_server.engine.requests import Origin, Timings
from chorus_server.engine.stats import EngineStats
from prompts_store.testing import FakeClock
from tests.server.api.test_upkeep import Ticks

ORIGIN = Origin("r", "acme", "acme/sst2")
OUTCOMES = {"ok": "answered", "cancelled": "cancelled", "internal": "failed", "deadline_exceeded": "failed"}

# Requests by outcome and seconds, refusals, and "tick".
events = st.lists(
    st.one_of(
        st.just("tick"),
        st.just("refused"),
        st.tuples(st.sampled_from(sorted(OUTCOMES)), st.sampled_from([0.0004, 0.02, 0.3, 70.0])),
    ),
    max_size=60,
)


class Watched:
    """An hour with the metrics that it is of.

    Args:
        kind: of the hour; the control's is broken.
    """

    def __init__(self, kind: type[LastHour] = LastHour) -> None:
        self.clock, self.metrics, self.stats = FakeClock(), Metrics(), EngineStats()
        self.hour = kind(self.metrics, lambda: self.stats, lambda: self.clock().timestamp(), self.clock)

    def happen(self, event: Any) -> None:
        engine = self.metrics.engine
        if event == "tick":
            self.clock.advance(TICK_SECONDS)
            self.hour.tick()
        elif event == "refused":
            engine.requests_refused.inc(1, "overloaded")
        else:
            outcome, seconds = event
            engine.request_done(ORIGIN, "generate", outcome, Timings(0.0, 0.0, seconds, None), 7, 3)

    def ticks(self) -> list[TickAnswer]:
        return self.hour.since(60)


def add_up(watched: Watched, asked: list[Any]) -> bool:
    """Whether the ticks have all that happened, each once."""
    for event in [*asked, "tick"]:
        watched.happen(event)
    ticks = watched.ticks()
    found = {name: sum(getattr(tick, name) for tick in ticks) for name in list(TickAnswer.model_fields)[2:8]}
    outcomes = [OUTCOMES[event[0]] for event in asked if event not in ("tick", "refused")]
    wanted = {name: outcomes.count(name) for name in ("answered", "failed", "cancelled")}
    wanted |= {
        "refused": asked.count("refused"),
        "tokens_in": 7 * len(outcomes),
        "tokens_out": 3 * len(outcomes),
    }
    return found == wanted and len(ticks) == 1 + asked.count("tick")


@settings(max_examples=40, deadline=None)
@given(events)
def test_ticks_add_up_to_what_is_counted(asked: list[Any]) -> None:
    assert add_up(Watched(), asked)


def test_control_an_hour_that_forgets_to_look_anew_does_not() -> None:
    class Broken(LastHour):
        def tick(self) -> None:
            counted = self._counted
            super().tick()
            self._counted = counted

    assert not add_up(Watched(Broken), [("ok", 0.02), "tick"])


def test_no_more_is_kept_than_an_hour_whatever_happens() -> None:
    watched = Watched()
    for _ in range(2 * TICKS):
        for outcome in OUTCOMES:
            watched.happen((outcome, 0.02))
        watched.happen("tick")
    ticks = watched.hour._ticks
    assert len(ticks) == TICKS and ticks[-1].ended - ticks[0].ended == timedelta(seconds=3590)
    assert all((tick.answered, tick.failed, tick.cancelled) == (1, 2, 1) for tick in ticks)
    assert [len(watched.hour.since(minutes)) for minutes in (0, 1, 60)] == [1, 7, TICKS]
    watched.clock.advance(3000)  # nothing ticked meanwhile: what is over is not the last hour's
    assert len(watched.ticks()) == 61


def test_gauges_are_those_of_its_end_and_a_late_tick_says_so() -> None:
    watched = Watched()
    watched.stats = EngineStats(queued=3, queued_units=70, slots_in_use=4)
    watched.clock.advance(5)
    watched.happen("tick")
    (tick,) = watched.ticks()
    assert (tick.queued, tick.queued_units, tick.slots_in_use, tick.seconds) == (3, 70, 4, 15)
    assert (tick.median_seconds, tick.p99_seconds) == (None, None)


def test_quantiles_are_those_of_the_tick_alone() -> None:
    watched = Watched()
    for seconds in [30.0] * 10:
        watched.happen(("ok", seconds))
    watched.happen("tick")
    for seconds in [0.02] * 99 + [0.3]:
        watched.happen(("ok", seconds))
    watched.happen("tick")
    slow, quick = watched.ticks()
    assert slow.median_seconds is not None and 10 < slow.median_seconds <= 30
    assert quick.median_seconds is not None and 0.01 < quick.median_seconds <= 0.025
    assert quick.p99_seconds == pytest.approx(0.025)


def test_a_quantile_is_prometheus_own() -> None:
    """By hand from the documentation of `histogram_quantile`: linear inside a bucket, from 0 in the first."""
    bounds = (1.0, 2.0, 4.0, float("inf"))
    assert quantile(bounds, [0, 0, 0, 0], 0.5) is None
    assert quantile(bounds, [10, 10, 10, 10], 0.5) == 0.5
    assert quantile(bounds, [2, 6, 10, 10], 0.5) == 1.75
    assert quantile(bounds, [0, 0, 4, 10], 0.99) == 4.0, "the last finite bound"


def test_it_ticks_every_ten_seconds_until_it_is_cancelled() -> None:
    async def run() -> None:
        watched = Watched()
        sleeps = Ticks(watched.clock)
        task = asyncio.create_task(watched.hour.run(sleeps.sleep))
        assert [await sleeps.asked(), await sleeps.next(), await sleeps.next()] == [TICK_SECONDS] * 3
        assert [tick.seconds for tick in watched.ticks()] == [TICK_SECONDS] * 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
