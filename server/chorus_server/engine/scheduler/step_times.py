"""How long steps take, so that those of a batch stay short while interactive requests come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

Shape = Hashable
"""What a step's time depends on: its kind and its compiled shapes."""

_KNOWN_SECONDS = 60.0
"""For so long a time counts. Then a step of that shape is tried again."""

_NEW = 0.25
_HARDLY_LONGER = 1.25
_STEPS = 16


class StepTimes:
    """Measured seconds of steps by shape, and of the steps in which interactive requests were encoded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: dict[Shape, tuple[float, float]] = {}
        self._own: deque[float] = deque(maxlen=_STEPS)

    def took(self, shape: Shape, seconds: float, *, own: bool = False) -> None:
        """Note what a step took; `own` if interactive requests were encoded in it."""
        known = self.seconds(shape)
        mean = seconds if known is None else known + _NEW * (seconds - known)
        self._seconds[shape] = (self._clock(), mean)
        if own:
            self._own.append(seconds)

    def seconds(self, shape: Shape) -> float | None:
        """What a step of a shape takes; None if none was seen lately."""
        at, mean = self._seconds.get(shape, (float("-inf"), 0.0))
        return mean if self._clock() - at <= _KNOWN_SECONDS else None

    @property
    def bearable(self) -> float | None:
        """How long a step of a batch may take for an interactive request that comes meanwhile: half as long
        as the shortest of their own steps did lately. None if there was none."""
        return min(self._own) / 2 if self._own else None

    def short(self, shape: Shape, base: Shape, bearable: float) -> bool:
        """Whether a step of a shape takes hardly longer than one of another, which has to be, or no longer
        than `bearable` seconds. A shape that was not seen lately is tried."""
        if shape == base:
            return True
        mine, needed = self.seconds(shape), self.seconds(base)
        if mine is None:
            return needed is not None
        return mine <= max(bearable, _HARDLY_LONGER * (needed or 0.0))
