"""When to try again, and after how long.

A request is tried again if the server cannot have acted on it (no connection was made), if the server asks
for it (429 and 503), and, for requests that may be repeated, if the connection broke, be it behind a proxy.
The client waits at least as long as the server's `Retry-After` says; without one, the wait is exponential
with full jitter. A budget keeps retries from burying an overloaded server: each first attempt earns a
fraction of a retry, so that over a long time retries stay under that fraction of the requests, apart from a
small reserve and a trickle for clients that seldom ask.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chorus.errors import ApiError, ChorusError

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How hard to try.

    Attributes:
        retries: further attempts after the first; 0 means none.
        first_wait_seconds: the longest wait before the first retry if the server names none. It doubles each
            time.
        longest_wait_seconds: if the server asks for a longer wait, its error is raised at once.
        budget_ratio: retries earned by each first attempt.
        budget_reserve: how many retries may be saved up; a new client starts with as many.
        budget_per_second: retries earned by time alone.
        repeat_inference: also ask the model again if the connection broke while the server may have been at
            work. The work may then be done, and counted, twice.
    """

    retries: int = 3
    first_wait_seconds: float = 0.25
    longest_wait_seconds: float = 30.0
    budget_ratio: float = 0.1
    budget_reserve: float = 5.0
    budget_per_second: float = 0.1
    repeat_inference: bool = False


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """What a client has sent: first attempts and retries; and retries that the budget refused."""

    requests: int
    retries: int
    refused_by_budget: int


class RetryBudget:
    """Counts what a client sends, and grants retries. It may be shared between threads."""

    def __init__(self, policy: RetryPolicy, clock: Clock = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._balance = policy.budget_reserve
        self._seen_at = clock()
        self._requests = self._retries = self._refused = 0

    def _earn(self, amount: float) -> None:
        self._balance = min(self._policy.budget_reserve, self._balance + amount)

    def first_attempt(self) -> None:
        """A new request is about to be sent."""
        with self._lock:
            self._requests += 1
            self._earn(self._policy.budget_ratio)

    def take(self) -> bool:
        """Spend one retry. False if there is none to spend."""
        with self._lock:
            now = self._clock()
            self._earn((now - self._seen_at) * self._policy.budget_per_second)
            self._seen_at = now
            granted = self._balance >= 1.0
            if granted:
                self._balance -= 1.0
                self._retries += 1
            else:
                self._refused += 1
            return granted

    @property
    def statistics(self) -> CallStatistics:
        """The counts so far."""
        with self._lock:
            return CallStatistics(self._requests, self._retries, self._refused)


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait from a `Retry-After` header (RFC 9110, 10.2.3): a number, or an HTTP date.

    Returns:
        0 or more; None if there is no header or it cannot be read.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


@dataclass(slots=True)
class Attempts:
    """The attempts at one request. After each failure it says whether and when to make another."""

    policy: RetryPolicy
    budget: RetryBudget
    uniform: Callable[[], float] = random.random
    made: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.budget.first_attempt()

    def pause_after(self, error: ChorusError, again: bool, left_seconds: float | None = None) -> float:
        """Seconds to wait before the next attempt.

        Args:
            error: why the last attempt failed.
            again: whether such a failure may be tried again at all.
            left_seconds: time left for the call; a wait that would outlast it is not started.

        Raises:
            ChorusError: `error` itself, if there is to be no other attempt.
        """
        wait = self._wait(error.retry_after_seconds if isinstance(error, ApiError) else None)
        longest = self.policy.longest_wait_seconds
        longest = longest if left_seconds is None else min(longest, left_seconds)
        last = not again or self.made >= self.policy.retries or wait > longest
        if last or not self.budget.take():
            raise error
        self.made += 1
        return wait

    def _wait(self, asked_seconds: float | None) -> float:
        backoff = min(self.policy.longest_wait_seconds, self.policy.first_wait_seconds * 2.0**self.made)
        if asked_seconds is None:
            return self.uniform() * backoff
        # The server told everybody the same time: arrive a little after it, and not all at once.
        return asked_seconds + self.uniform() * min(backoff, 0.1 * asked_seconds)
