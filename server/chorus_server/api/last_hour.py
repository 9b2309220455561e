"""What this process did in the last hour, a line each ten seconds: how much `/metrics` counts grew meanwhile,
and what the gauges said at the end. Nothing is counted twice, and nothing else is kept."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from chorus_server.api.metrics import Metrics
from chorus_server.api.schemas.operations import TickAnswer
from chorus_server.engine.stats import EngineStats

TICK_SECONDS = 10.0
TICKS = 360


class LastHour:
    """The last `TICKS` ticks; whatever was asked, the memory is theirs.

    Args:
        stats: the engine's gauges, whichever engine there is by then.
        clock: gives monotonic seconds.
        now: the time.
    """

    def __init__(
        self,
        metrics: Metrics,
        stats: Callable[[], EngineStats],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._metrics = metrics.engine
        self._stats = stats
        self._clock = clock
        self._now = now
        self._ticks: deque[TickAnswer] = deque(maxlen=TICKS)
        self._counted = self._count()
        self._begun = clock()

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Tick until cancelled. The engine may keep whoever asks it waiting, so a thread does."""
        while True:
            await sleep(TICK_SECONDS)
            await asyncio.to_thread(self.tick)

    def tick(self) -> None:
        """End a tick. Called from one thread at a time."""
        counted, begun, before = self._count(), self._begun, self._counted
        self._counted, self._begun = counted, self._clock()
        grown = [round(now - then) for now, then in zip(counted[0], before[0], strict=True)]
        within = [now - then for now, then in zip(counted[1], before[1], strict=True)]
        answered, failed, cancelled, refused, tokens_in, tokens_out = grown
        bounds, gauges = self._metrics.request_seconds.bounds, self._stats()
        self._ticks.append(
            TickAnswer(
                ended=self._now(),
                seconds=self._begun - begun,
                answered=answered,
                failed=failed,
                cancelled=cancelled,
                refused=refused,
                tokens_in=tokens_in,
                tokens_out=tokens_out,
                median_seconds=quantile(bounds, within, 0.5),
                p99_seconds=quantile(bounds, within, 0.99),
                queued=gauges.queued,
                queued_units=gauges.queued_units,
                slots_in_use=gauges.slots_in_use,
            )
        )

    def since(self, minutes: float) -> list[TickAnswer]:
        """The ticks that ended so many minutes ago or later, oldest first."""
        begin = self._now() - timedelta(minutes=minutes)
        return [tick for tick in tuple(self._ticks) if tick.ended >= begin]

    def _count(self) -> tuple[list[float], list[float]]:
        """Answered, failed, cancelled and refused requests, tokens in and out so far; and how many answers
        took at most so long."""
        metrics, by = self._metrics, {"ok": 0, "cancelled": 2}
        counts = [0.0] * 6
        for (_, outcome), count in metrics.requests.counted().items():
            counts[by.get(outcome, 1)] += count
        rest = (metrics.requests_refused, metrics.input_tokens, metrics.output_tokens)
        counts[3:] = [sum(each.counted().values()) for each in rest]
        return counts, metrics.request_seconds.counted()


def quantile(bounds: Sequence[float], within: Sequence[float], share: float) -> float | None:
    """A quantile of a histogram, linear inside a bucket as Prometheus has it; None if nothing was counted.

    Args:
        bounds: upper bounds, infinity last; above the last finite one nothing is told apart.
        within: how many values were at most each bound.
    """
    wanted = share * within[-1]
    if not wanted:
        return None
    place = next(place for place, count in enumerate(within) if count >= wanted)
    if math.isinf(bounds[place]):
        return bounds[-2]
    low, below = (bounds[place - 1], within[place - 1]) if place else (0.0, 0.0)
    return low + (bounds[place] - low) * (wanted - below) / (within[place] - below)
