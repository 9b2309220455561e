"""One limit of one tenant or key, as this process knows it: what it may spend, and what it should ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from prompts_store.budgets.bucket import Bucket
from prompts_store.budgets.records import LeaseAnswer, LeaseAsk, Unit, Window
from prompts_store.months import month_of

SMALL = 60
"""A limit below this is leased one by one: only what requests wait for."""

LEASE_EVERY_SECONDS = 1.0
"""From an answer that was too little to the next question; and from one round of questions to the next."""

RENEW_SECONDS = 3.0
"""A lease of which nothing changes is renewed after this time."""

_SHARE = 32
"""At least this part of a minute's limit is leased ahead by a process that uses it."""


@dataclass(slots=True)
class BudgetLine:
    """A limit, and this process's part of it.

    Attributes:
        most: the limit; None if it only warns.
        soft: of a month: from when on answers carry a warning.
        month: the first moment of the month that it counts.
        left: leased and not spent; below 0 what was spent without a lease.
        in_use: of what is in flight or queued.
        peak, last_peak: the most of it since the last tick, and in the second before it.
        waiting: what requests wait for now.
        spent, rate: what requests wanted since the last tick, and in the second before it.
        asked_at: when the store was asked last, on the monotonic clock.
        short: whether it gave less than was needed.
        others: how many other processes have some of it.
    """

    window: Window
    unit: Unit
    most: int | None
    soft: int | None
    month: datetime
    left: int = 0
    in_use: int = 0
    peak: int = 0
    last_peak: int = 0
    waiting: int = 0
    spent: int = 0
    rate: int = 0
    asked_at: float = -math.inf
    short: bool = False
    others: int = 0
    _leased: int = 0
    _free: int = 0
    _full_at: int = 0
    _used: int = 0

    @property
    def name(self) -> str:
        """Its path in the limits' document."""
        return f"{self.window}.{self.unit}"

    @property
    def places(self) -> bool:
        """Whether it counts what there is at one time, and not what passes."""
        return self.window in ("in_flight", "queued")

    @property
    def known(self) -> bool:
        """Whether the store was ever asked."""
        return self.asked_at > -math.inf

    def free(self, now: float) -> int:
        """What nobody has taken, as far as is known."""
        if self.window == "per_minute":
            return Bucket(self.most or 0).free(self._full_at, _us(now))
        return self._free

    def remaining(self, now: float) -> int:
        """What may still be spent, as it is told: a minute's bucket fills again beside what is leased."""
        left = self.free(now) + max(0, self.left)
        return left if self.most is None else min(left, self.most)

    def used(self, now: float) -> int:
        """What is spent or taken, of all processes."""
        if self.window == "per_month":
            return max(0, self._used - self.left)
        return max(0, (self.most or 0) - self.remaining(now))

    @property
    def warns(self) -> bool:
        """Whether the soft limit is passed."""
        return self.soft is not None and self.used(0.0) >= self.soft

    def full_in(self, now: float, today: datetime) -> float:
        """Seconds until all of it may be spent again."""
        if self.window == "per_month":
            return until_next_month(today)
        missing = (self.most or 0) - self.remaining(now)
        return 60.0 * missing / max(1, self.most or 0) if self.window == "per_minute" else 0.0

    def wait(self, amount: int, now: float, today: datetime) -> float:
        """Seconds until so much may be spent, if nobody spends any before."""
        if self.window == "per_month":
            return until_next_month(today)
        if self.places or not self.most:
            return 60.0 if self.window == "per_minute" else 1.0
        missing = max(0, min(amount, self.most) - max(0, self.left))
        wait = Bucket(self.most).wait(self._full_at, _us(now), missing) / 1e6
        return max(wait, self.asked_at + LEASE_EVERY_SECONDS - now)

    def fits(self, amount: int) -> bool:
        """Whether so much can be spent of what is leased."""
        return amount <= max(0, self.left) or self.most is None

    def fits_alone(self, amount: int, now: float) -> bool:
        """While the store is away: whether it can be spent of what is leased, and of a fair part of what was
        free."""
        return self.most is None or amount <= max(0, self.left) + self.free(now) // (1 + self.others)

    def refuses(self, amount: int, now: float) -> bool:
        """Whether asking the store now is of no use."""
        if self.most is None or self.fits(amount):
            return False
        return amount > self.most or (self.short and now < self.asked_at + LEASE_EVERY_SECONDS)

    def take(self, amount: int) -> None:
        """Spend it."""
        self.left -= amount
        self.spent += amount
        if self.places:
            self.in_use += amount
            self.peak = max(self.peak, self.in_use)

    def take_alone(self, amount: int, now: float) -> None:
        """Spend it while the store is away. The others spend as much of what was free, it is assumed."""
        over = max(0, amount - max(0, self.left)) * (1 + self.others)
        if self.window == "per_minute" and self.most:
            self._full_at = Bucket(self.most).take(self._full_at, _us(now), over)
        self._free = max(0, self._free - over)
        self.take(amount)

    def give(self, amount: int, month: datetime) -> None:
        """It was not spent after all, or is in use no more.

        Args:
            month: the line's when it was taken.
        """
        if self.window == "per_month" and month != self.month:
            return
        self.left += amount
        if self.places:
            self.in_use -= amount

    def turn(self, today: datetime) -> None:
        """Begin the next month, if it has begun."""
        if self.window == "per_month" and (month := month_of(today)) != self.month:
            self.month, self.left, self._leased, self._used, self.short = month, 0, 0, 0, False
            self._free = 2**53 if self.most is None else self.most

    def due(self, now: float) -> bool:
        """Whether the store should be asked without anybody waiting: once a second at most."""
        if now < self.asked_at + LEASE_EVERY_SECONDS or not self.known:
            return False
        # Until it is told what was spent of a month, a crash would give it back.
        if self.window == "per_month" and self._leased > self.left:
            return True
        if self.left < 0 or self.left > self._keep() or (self.rate and self.left < self._ahead()):
            return True
        return bool(self.left + self.in_use) and now >= self.asked_at + RENEW_SECONDS

    def ask(self, tenant: str, key: str) -> LeaseAsk:
        """What to ask the store. What goes back is gone from here; see `answered` and `failed`."""
        left = max(0, self.left)
        # Nothing is let go that somebody waits for.
        keep = max(self._keep(), self.waiting)
        back = self.left if self.left < 0 else max(0, left - keep)
        self.left -= back
        # What was spent without a lease is in use like everything else.
        held = self.in_use + self.left if self.places else self.left
        need, ahead = max(0, self.waiting - self.left), max(0, self._ahead() - self.left)
        return LeaseAsk(tenant, key, self.name, self.most, held, back, need, ahead)

    def answered(self, ask: LeaseAsk, answer: LeaseAnswer, now: float) -> None:
        """The store has answered."""
        self.left += answer.granted
        self._leased = ask.held + answer.granted
        self.asked_at, self.short, self.others = now, answer.granted < ask.need, answer.others
        self._free, self._used = answer.free, answer.used
        self._full_at = _us(now) + answer.full_in_us

    def failed(self, ask: LeaseAsk) -> None:
        """It has not: nothing was changed."""
        self.left += ask.back

    def tick(self) -> None:
        """A second is over."""
        self.rate, self.spent = self.spent, 0
        self.last_peak, self.peak = self.peak, self.in_use

    def _ahead(self) -> int:
        # Twice: the next second may want more, and the one after it begins before the store has answered.
        recent = 2 * max(self.rate, self.spent, self.waiting)
        if not recent or self.places or self.most is None or self.most < SMALL:
            return 0
        return max(recent, self.most // _SHARE) if self.window == "per_minute" else recent

    def _keep(self) -> int:
        if self.places:
            return max(self.peak, self.last_peak) - self.in_use
        return 2 * self._ahead()


def until_next_month(today: datetime) -> float:
    """Seconds."""
    return (month_of(month_of(today) + timedelta(days=31)) - today).total_seconds()


def _us(now: float) -> int:
    return int(now * 1e6)
