"""Budgets: what each tenant and key may use over time, decided in memory from what was leased of the store.

    reserve --- engine ---> started (queued no more) ---> settle (on what was produced)
       |
       +--- too little is leased: one question to the store, for all who wait at that moment

A question is put on a thread, at most once a second for each tenant and key after a first few, and all that
are due go in one transaction. While the store is away, a process goes on with what it has and a fair part of
what was free, for `STALE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime

from chorus_server.changes.reader import Thread
from chorus_server.engine.requests import Request
from chorus_server.engine.work import Settled, most_tokens, work_units
from chorus_server.errors import QuotaExceededError
from chorus_server.tenancy.budget_line import LEASE_EVERY_SECONDS, BudgetLine
from chorus_server.tenancy.leasing import AskStore, Leasing, Subject, lines_of, unknown
from chorus_server.tenancy.metrics import BudgetMetrics
from chorus_server.tenancy.principal import Principal
from chorus_server.tenancy.quota import Told, refusal, told
from prompts_store.base import utc_now
from prompts_store.budgets.records import UNITS, Unit
from prompts_store.months import month_of
from prompts_store.tenants.limits import KeyLimits

LOG = logging.getLogger("chorus.budgets")

_ROUNDS = 3
"""How often a request waits for the store, where others take before it what came."""

_TICKED_AT_ONCE = 1000

_IDLE_SECONDS = 60.0
"""After this time nothing is remembered of a tenant or key that nobody used."""

_Cost = dict[Unit, int]
_Its = tuple[Subject, BudgetLine]
_Held = list[tuple[BudgetLine, int, datetime]]
"""What one item holds until it is settled: of each line how much, and of which month."""


class Budgets:
    """What may be used, and what is used now.

    `reserve` and what is awaited belong to the event loop; `started`, `settle` and `release` may be called
    from any thread.

    Args:
        ask_store: asks the store.
        thread: where; it runs one question at a time.
        clock: monotonic seconds.
        now: this moment, in UTC; only for months.
    """

    def __init__(
        self,
        ask_store: AskStore,
        thread: Thread,
        metrics: BudgetMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._subjects: dict[tuple[str, str], Subject] = {}
        self._held: dict[str, _Held] = {}
        self._leasing = Leasing(ask_store, thread, metrics, self._lock, clock)
        self._warned: dict[tuple[str, str, str], datetime] = {}

    @property
    def replica(self) -> str:
        """What this process is called where it leases budgets."""
        return self._leasing.replica

    async def reserve(self, caller: Principal, requests: Sequence[Request]) -> None:
        """Take what these requests may cost at most, for all of them or for none.

        Raises:
            QuotaExceededError: `limit_exceeded`; names the limit, and when to try again.
            StoreError: the store has been away for too long.
        """
        subjects = self._subjects_of(caller)
        if not subjects:
            return
        costs = [_cost(request) for request in requests]
        cost: _Cost = {unit: sum(each[unit] for each in costs) for unit in UNITS}
        every = [(subject, line) for subject in subjects for line in subject.lines]
        for rounds_left in reversed(range(_ROUNDS)):
            with self._lock:
                short = self._short(every, cost)
                if not short:
                    self._take(every, cost, requests, costs)
                    return
                if not rounds_left:
                    raise self._refused(short, cost)
                # Of all lines: what is enough must not be given back while the others are asked about.
                for _, line in every:
                    line.waiting += cost[line.unit]
            try:
                await self._leasing.ask({subject for subject, _ in short})
            finally:
                with self._lock:
                    for _, line in every:
                        line.waiting -= cost[line.unit]

    def check(self, caller: Principal) -> None:
        """Refuse what `reserve` would refuse of this caller, whatever it is. Costs no question.

        Raises:
            QuotaExceededError: like there.
        """
        subjects = self._subjects_of(caller)
        if not subjects:
            return
        with self._lock:
            now = self._clock()
            if self._leasing.away_since is not None:
                return
            none = [(s, line) for s in subjects for line in s.lines if line.refuses(1, now)]
            if none:
                for _, line in none:
                    line.spent += 1
                raise self._refused(none, dict.fromkeys(UNITS, 1))

    def started(self, request_ids: Iterable[str]) -> None:
        """The model begins with these: they are queued no more."""
        with self._lock:
            for request_id in request_ids:
                held = self._held.get(request_id)
                if held is None:
                    continue
                for line, amount, month in held:
                    if line.window == "queued":
                        line.give(amount, month)
                self._held[request_id] = [part for part in held if part[0].window != "queued"]

    def settle(self, settled: Settled) -> None:
        """Give back what an item did not use. The request itself counts, however it ended."""
        actual: _Cost = {
            "requests": 1,
            "tokens": settled.tokens_in + settled.tokens_out,
            "work_units": settled.work_units,
        }
        self._give_back(settled.origin.request_id, actual)

    def release(self, request_ids: Iterable[str]) -> None:
        """The engine never had these: they cost nothing. Those that are settled stay so."""
        for request_id in request_ids:
            self._give_back(request_id, dict.fromkeys(UNITS, 0))

    def limits_of(self, caller: Principal) -> list[Told]:
        """How the caller's limits stand, as far as is known without a question; its tenant's first."""
        today, now = self._now(), self._clock()
        subjects = self._subjects_of(caller)
        with self._lock:
            for subject in subjects:
                for line in subject.lines:
                    line.turn(today)
            return [told(s.owner, line, now, today) for s in subjects for line in s.lines]

    async def refresh(self, caller: Principal) -> None:
        """Ask how the caller's limits stand, unless that was just done. While the store is away, nothing."""
        now = self._clock()
        old = {
            subject
            for subject in self._subjects_of(caller)
            if any(now >= line.asked_at + LEASE_EVERY_SECONDS for line in subject.lines)
        }
        if old and self._leasing.away_since is None:
            await self._leasing.ask(old)

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Once a second, until cancelled: give back what is not needed, lease what will be."""
        while True:
            await sleep(LEASE_EVERY_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Do what is due once a second."""
        everybody, due = list(self._subjects.items()), set[Subject]()
        for start in range(0, len(everybody), _TICKED_AT_ONCE):
            with self._lock:
                due |= self._tick_some(everybody[start : start + _TICKED_AT_ONCE])
            await asyncio.sleep(0)
        if not due and self._leasing.away_since is not None:  # see whether the store is back
            due = {subject for _, subject in everybody[:1]}
        await self._leasing.ask_idly(due)

    def _tick_some(self, some: Sequence[tuple[tuple[str, str], Subject]]) -> set[Subject]:
        """Those that have something to ask."""
        today, now, due = self._now(), self._clock(), set()
        for name, subject in some:
            for line in subject.lines:
                line.turn(today)
                line.tick()
                self._warn(subject, line)
            if subject.may_ask_idly(now) and any(line.due(now) for line in subject.lines):
                due.add(subject)
            elif now > subject.used_at + _IDLE_SECONDS and not any(
                line.left or line.in_use or line.waiting for line in subject.lines
            ):
                self._subjects.pop(name, None)
        return due

    def close(self) -> None:
        """At the end of the process, off the event loop: give everything back, if that can be."""
        self._leasing.give_all_back(self._subjects.values())

    def _subjects_of(self, caller: Principal) -> list[Subject]:
        found = []
        if caller.tenant_limits is not None:
            found.append(self._subject(caller.tenant, "", caller.tenant_limits))
        if caller.limits is not None and caller.key is not None:
            found.append(self._subject(caller.tenant, caller.key, caller.limits))
        return [subject for subject in found if subject.lines]

    def _subject(self, tenant: str, key: str, limits: KeyLimits) -> Subject:
        with self._lock:
            subject = self._subjects.get((tenant, key))
            if subject is None:
                lines = lines_of(limits, {}, month_of(self._now()))
                subject = Subject(tenant, key, limits, lines, self._clock())
                self._subjects[tenant, key] = subject
            elif subject.limits is not limits and subject.limits != limits:
                subject.change(limits, month_of(self._now()))
            subject.used_at = self._clock()
            return subject

    def _short(self, every: Sequence[_Its], cost: _Cost) -> list[_Its]:
        """The lines of which too little is leased, and that the store should be asked about.

        Raises:
            QuotaExceededError: there is no use in asking.
            StoreError: see `Leasing.alone`.
        """
        now, today = self._clock(), self._now()
        for _, line in every:
            line.turn(today)
        if self._leasing.alone(now):
            if not all(line.known for _, line in every):
                raise unknown()
            if short := [its for its in every if not its[1].fits_alone(cost[its[1].unit], now)]:
                raise self._refused(short, cost)
            return []
        short = [
            (subject, line)
            for subject, line in every
            if not line.fits(cost[line.unit]) or (line.soft is not None and not line.known)
        ]
        hopeless = [
            (subject, line)
            for subject, line in short
            if line.refuses(cost[line.unit], now) or subject.asks_too_often(now)
        ]
        if hopeless:
            for _, line in short:
                line.spent += min(cost[line.unit], line.most or 0)
            raise self._refused(hopeless, cost)
        return short

    def _take(
        self, every: Sequence[_Its], cost: _Cost, requests: Sequence[Request], costs: Sequence[_Cost]
    ) -> None:
        now = self._clock()
        alone = self._leasing.away_since is not None
        for subject, line in every:
            if alone:
                line.take_alone(cost[line.unit], now)
            else:
                line.take(cost[line.unit])
            self._warn(subject, line)
        for request, its in zip(requests, costs, strict=True):
            parts = [(line, its[line.unit], line.month) for _, line in every]
            self._held[request.origin.request_id] = parts

    def _refused(self, short: Sequence[_Its], cost: _Cost) -> QuotaExceededError:
        now, today = self._clock(), self._now()
        errors = [
            (refusal(subject.owner, line, cost[line.unit], now, today), line) for subject, line in short
        ]
        error, line = max(errors, key=lambda each: each[0].retry_after_seconds or 0.0)
        self._metrics.refused.inc(1, line.name)
        return error

    def _give_back(self, request_id: str, actual: _Cost) -> None:
        with self._lock:
            held = self._held.pop(request_id, None)
            for line, amount, month in held or ():
                line.give(amount - (0 if line.places else min(amount, actual[line.unit])), month)

    def _warn(self, subject: Subject, line: BudgetLine) -> None:
        """Tell once a month that a soft limit is passed."""
        name = (subject.tenant, subject.key, line.name)
        if line.warns and self._warned.get(name) != line.month:
            self._warned = {each: month for each, month in self._warned.items() if month == line.month}
            self._warned[name] = line.month
            self._metrics.warnings.inc(1, line.name)
            whose = f"key {subject.key} of " if subject.key else ""
            message = "%stenant %s is past its soft limit %s: %d of %d"
            LOG.warning(message, whose, subject.tenant, line.name, line.used(0.0), line.soft)


def _cost(request: Request) -> _Cost:
    """What a request may cost at most."""
    return {"requests": 1, "tokens": most_tokens(request), "work_units": work_units(request)}
