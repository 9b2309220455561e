"""How long steps take, so that those of a batch stay short while interactive requests come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from statistics import median_low

from chorus_server.engine.plans import BlockMode, BlockShape
from chorus_server.engine.scheduler.steps import DecodeStep, PrefillStep, Step
from chorus_server.engine.scheduler.tickets import Ticket

StepShape = Hashable
"""What a step's time depends on."""

_KNOWN_SECONDS = 60.0
"""For so long `_TIMES` times of a shape count. Then a step of that shape is tried again."""

_TIMES = 5
_HARDLY_LONGER = 1.25
_STEPS = 16


def shape_of(tickets: Sequence[Ticket], bucket: tuple[int, int], tokens: int) -> StepShape:
    """The shape of a prefill step; `bucket` and `tokens` as in a `PrefillPlan`."""
    return (tickets[0].kind, bucket, tokens, max(ticket.fit.nodes for ticket in tickets))


class StepTimes:
    """Measured seconds of steps by shape, and of the steps in which interactive requests were encoded.

    Of each shape the middle one of the last few counts, so that a pause in one step keeps no other short. The
    fewer there are, the sooner it is tried again: a program takes longer when it runs for the first time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: dict[StepShape, tuple[float, deque[float]]] = {}
        self._own: deque[float] = deque(maxlen=_STEPS)

    def took(self, step: Step, shape: BlockShape | None, seconds: float) -> None:
        """Note what a step took that nothing else was in flight with, both halves of one that was done in
        two; `shape` is the block's, of a decode step."""
        if isinstance(step, DecodeStep):
            self._note((shape, step.plan.mode), seconds / step.plan.tokens)
        else:
            if any(ticket.origin.priority == "interactive" for ticket in step.tickets):
                self._own.append(seconds)
            self._note(shape_of(step.tickets, step.plan.bucket, step.plan.tokens), seconds)

    @property
    def bearable(self) -> float | None:
        """How long a step of a batch may take for an interactive request that comes meanwhile: half as long
        as the shortest of their own did lately. None if there was none."""
        return min(self._own) / 2 if self._own else None

    def short(self, shape: StepShape, needed: StepShape, bearable: float) -> bool:
        """Whether a step of a shape takes hardly longer than one of another, which has to be, or no longer
        than `bearable` seconds. A shape that was not seen lately is tried."""
        mine, least = self._known(shape), self._known(needed)
        if shape == needed or mine is None:
            return shape == needed or least is not None
        return mine <= max(bearable, _HARDLY_LONGER * (least or 0.0))

    def bears(self, step: PrefillStep) -> bool:
        """Whether nobody interactive would wait for a step for longer than is bearable, as far as is
        known."""
        known = self._known(shape_of(step.tickets, step.plan.bucket, step.plan.tokens))
        return self.bearable is None or (known is not None and known <= self.bearable)

    def bearable_tokens(self, shape: BlockShape, mode: BlockMode, most: int) -> int:
        """How many tokens a decode step of nothing but a batch makes, at most `most`."""
        bearable, each = self.bearable, self._known((shape, mode))
        return most if bearable is None or not each else max(1, min(most, int(bearable / each)))

    def _note(self, shape: StepShape, seconds: float) -> None:
        now = self._clock()
        at, times = self._seconds.get(shape, (now, deque[float](maxlen=_TIMES)))
        if now - at > _KNOWN_SECONDS:
            times.clear()
        times.append(seconds)
        self._seconds[shape] = (now, times)

    def _known(self, shape: StepShape) -> float | None:
        at, times = self._seconds.get(shape, (0.0, ()))
        lasts = _KNOWN_SECONDS * len(times) / _TIMES
        return median_low(times) if times and self._clock() - at <= lasts else None
