"""A limit in a window as a token bucket, kept as one moment (GCRA, the generic cell rate algorithm).

The bucket holds a window's worth and refills evenly. All that has to be remembered is when it will be full
again: taking moves that moment on, time passes towards it.
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit of `limit` units in each `window_us` microseconds. Moments are in microseconds on one clock."""

    limit: int
    window_us: int = MINUTE_US

    def free(self, full_at: int, now: int) -> int:
        """How many units can be taken now."""
        return max(0, (self.window_us - max(0, full_at - now)) * self.limit // self.window_us)

    def take(self, full_at: int, now: int, amount: int) -> int:
        """When it will be full again after so many units were taken, also more than there were."""
        return max(full_at, now) + self._refill(amount)

    def give(self, full_at: int, amount: int) -> int:
        """The same after so many came back. Never sooner than they would have refilled, so nothing is won."""
        return full_at - amount * self.window_us // max(1, self.limit)

    def wait(self, full_at: int, now: int, amount: int) -> int:
        """In how many microseconds so many units can be taken, if nobody takes any before; at most `limit`
        can ever be."""
        return max(0, full_at + self._refill(amount) - self.window_us - now)

    def _refill(self, amount: int) -> int:
        return -(-amount * self.window_us // max(1, self.limit))
