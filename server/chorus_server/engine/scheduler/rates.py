"""How fast the queue is served. Used for `Retry-After`, and to refuse requests that could not meet their
deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

_PREFILLS = 32
_FINISHES = 64
_ENOUGH = 3
_RECENT_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0


class ServiceRate:
    """The rate at which an engine with a queue serves work, and how many seconds a request's step takes.

    Not thread-safe. Only while requests wait do we see how fast the engine can go: an idle one does nothing,
    and one that serves a single request could serve many in the same time. So the interval between two
    prefill steps counts only if the requests of the second were already waiting at the first; and while there
    is no queue, every expected time is 0.

    Attributes:
        stands: whether there was a queue lately, that is, two prefill steps in a row left requests behind.
    """

    def __init__(self) -> None:
        self._prefills: deque[tuple[float, float]] = deque(maxlen=_PREFILLS)
        self._finishes: deque[tuple[float, float]] = deque(maxlen=_FINISHES)
        self._last_prefill: float | None = None
        self._stood = float("-inf")
        self.stands = False
        self._seconds_a_prefill = self._seconds_a_work = 0.0
        self._seconds_a_step = 0.0

    @property
    def last_prefill(self) -> float | None:
        """When the last prefill step was planned, in this busy period."""
        return self._last_prefill

    def prefilled(self, now: float, work: float, *, waited: bool, left: bool) -> None:
        """Note that a prefill step took `work` from the queue.

        Args:
            waited: whether its requests were already in the queue at the prefill step before.
            left: whether others are still waiting.
        """
        if waited and self._last_prefill is not None:
            self._prefills.append((now - self._last_prefill, work))
            self._seconds_a_work = _mean(self._prefills)
            self._seconds_a_prefill = sum(seconds for seconds, _ in self._prefills) / len(self._prefills)
        self._last_prefill = now
        if waited and left:
            self._stood = now
        self.stands = now - self._stood < _RECENT_SECONDS
        if not self.stands:
            self._forget()

    def finished(self, service_seconds: float, steps: int) -> None:
        """Note that a request was answered after `service_seconds` and `steps` on the device."""
        self._finishes.append((service_seconds, steps))
        self._seconds_a_step = _mean(self._finishes)

    def idle(self) -> None:
        """Forget the rates: nothing is running, and what comes next may be quite different."""
        self._forget()
        self._last_prefill = None
        self._stood, self.stands = float("-inf"), False

    def wait_seconds(self, work: float, now: float) -> float:
        """Seconds that a request waits behind `work`; 0 without a queue or with too few measurements.

        Work leaves the queue one prefill step at a time: a request waits for the next step, and for as many
        more as the requests before it fill. When a step takes long, that is much more than the request's own
        share of the work.
        """
        if not self.stands or not self._seconds_a_work or self._last_prefill is None:
            return 0.0
        steps = 1 + int(work * self._seconds_a_work / self._seconds_a_prefill)
        return max(0.0, steps * self._seconds_a_prefill - (now - self._last_prefill))

    def service_seconds(self, steps: int) -> float:
        """Seconds that `steps` take on the device; 0 without a queue or with too few measurements."""
        return steps * self._seconds_a_step if self.stands else 0.0

    def retry_after(self, work: float) -> float:
        """Seconds until half of the waiting work will be done, between 1 and 60."""
        waiting = work * self._seconds_a_work if self.stands else 0.0
        return min(_LONGEST_RETRY_SECONDS, max(1.0, waiting / 2))

    def _forget(self) -> None:
        self._prefills.clear()
        self._finishes.clear()
        self._seconds_a_prefill = self._seconds_a_work = self._seconds_a_step = 0.0


def _mean(samples: Sequence[tuple[float, float]]) -> float:
    """Seconds for each unit of work; 0 if there are too few samples."""
    if len(samples) < _ENOUGH:
        return 0.0
    return sum(seconds for seconds, _ in samples) / sum(units for _, units in samples)
