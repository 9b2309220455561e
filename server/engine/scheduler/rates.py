"""How fast a standing queue moves: for Retry-After, and to shed what cannot be met."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_PASSES = 32
_FINISHES = 64
_ENOUGH = 3
_RECENT_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0


class ServiceRate:
    """Work a second of an engine that has a queue, and seconds a step of a request. Not thread-safe.

    Only time in which requests stood in line says how fast the engine can go: an idle one does nothing, and
    one that serves a request at a time would serve many in the same time. So an interval between two encoder
    passes counts when the second one's requests had waited at the first one already; and while no queue
    stands, nothing is expected to take any time.

    Attributes:
        stands: whether a queue stood lately: requests were left behind by two encoder passes in a row.
    """

    def __init__(self) -> None:
        self._passes: deque[tuple[float, float]] = deque(maxlen=_PASSES)
        self._finishes: deque[tuple[float, float]] = deque(maxlen=_FINISHES)
        self._last_pass: float | None = None
        self._stood = float("-inf")
        self.stands = False
        self._seconds_a_pass = self._seconds_a_work = 0.0
        self._seconds_a_step = 0.0

    @property
    def last_pass(self) -> float | None:
        """When the last encoder pass was planned, in this busy period."""
        return self._last_pass

    def passed(self, now: float, work: float, *, waited: bool, left: bool) -> None:
        """An encoder pass took so much work from the queue.

        Args:
            waited: its requests were in the queue at the pass before it.
            left: others wait still.
        """
        if waited and self._last_pass is not None:
            self._passes.append((now - self._last_pass, work))
            self._seconds_a_work = _mean(self._passes)
            self._seconds_a_pass = sum(seconds for seconds, _ in self._passes) / len(self._passes)
        self._last_pass = now
        if waited and left:
            self._stood = now
        self.stands = now - self._stood < _RECENT_SECONDS
        if not self.stands:
            self._forget()

    def finished(self, service_seconds: float, steps: int) -> None:
        """A request was answered: so long and so many steps on the device."""
        self._finishes.append((service_seconds, steps))
        self._seconds_a_step = _mean(self._finishes)

    def idle(self) -> None:
        """Nothing is under way: what comes next may be of quite another kind."""
        self._forget()
        self._last_pass = None
        self._stood, self.stands = float("-inf"), False

    def wait_seconds(self, work: float, now: float) -> float:
        """How long a request waits behind so much work; 0 while no queue stands or too little was seen of it.

        Work leaves the queue a pass at a time: a request waits for the next one, and for as many more as
        those before it fill. Where a pass takes long, that is much more than its part of the work.
        """
        if not self.stands or not self._seconds_a_work or self._last_pass is None:
            return 0.0
        passes = 1 + int(work * self._seconds_a_work / self._seconds_a_pass)
        return max(0.0, passes * self._seconds_a_pass - (now - self._last_pass))

    def service_seconds(self, steps: int) -> float:
        """What so many steps take on the device beside others; 0 while no queue stands or too little was
        seen."""
        return steps * self._seconds_a_step if self.stands else 0.0

    def retry_after(self, work: float) -> float:
        """Seconds until half of the work that waits will have been served; 1 to 60."""
        waiting = work * self._seconds_a_work if self.stands else 0.0
        return min(_LONGEST_RETRY_SECONDS, max(1.0, waiting / 2))

    def _forget(self) -> None:
        self._passes.clear()
        self._finishes.clear()
        self._seconds_a_pass = self._seconds_a_work = self._seconds_a_step = 0.0


def _mean(samples: Sequence[tuple[float, float]]) -> float:
    """Seconds for each unit; 0 of too few samples."""
    if len(samples) < _ENOUGH:
        return 0.0
    return sum(seconds for seconds, _ in samples) / sum(units for _, units in samples)
