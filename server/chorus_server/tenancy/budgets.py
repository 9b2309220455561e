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
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chorus_server.changes.memory import STALE_SECONDS
from chorus_server.changes.reader import Thread
from chorus_server.engine.requests import Request
from chorus_server.engine.work import Settled, most_tokens, work_units
from chorus_server.errors import ChorusError, QuotaExceededError
from chorus_server.tenancy.budget_line import ASK_SECONDS, BudgetLine
from chorus_server.tenancy.metrics import BudgetMetrics
from chorus_server.tenancy.principal import Principal
from chorus_server.tenancy.quota import Owner, Told, refusal, told
from prompts_store.base import utc_now
from prompts_store.budgets.records import UNITS, WINDOWS, LeaseAnswer, LeaseAsk, Unit
from prompts_store.errors import StoreError
from prompts_store.tenants.limits import KeyLimits
from prompts_store.usage.usage import month_of

LOG = logging.getLogger("chorus.budgets")

LEASE_PATIENCE_SECONDS = 1.0
"""How long a question waits for the publish lock."""

_ROUNDS = 3
"""How often a request waits for the store, where others take before it what came."""

_FIRST_ASKS = 60
"""Questions that a tenant or a key may put before it is one a second."""

_IDLE_SECONDS = 60.0
"""After this time nothing is remembered of a tenant or key that nobody used."""

Lease = Callable[..., list[LeaseAnswer]]
"""See `BudgetLeases.lease_budgets`."""


@dataclass(slots=True, eq=False)
class _Subject:
    """A tenant, or with `key` one of its keys."""

    tenant: str
    key: str
    limits: KeyLimits
    lines: list[BudgetLine]
    used_at: float
    paced_until: float = 0.0

    @property
    def owner(self) -> Owner:
        return "key" if self.key else "tenant"


Cost = dict[Unit, int]
_Its = tuple[_Subject, BudgetLine]
_Held = list[tuple[BudgetLine, int, datetime]]
"""What one item holds until it is settled: of each line how much, and of which month."""


class Budgets:
    """What may be used, and what is used now.

    `reserve` and what is awaited belong to the event loop; `started`, `settle` and `release` may be called
    from any thread.

    Args:
        lease: asks the store.
        thread: where; it runs one question at a time.
        clock: monotonic seconds.
        now: this moment, in UTC; only for months.
    """

    def __init__(
        self,
        lease: Lease,
        thread: Thread,
        metrics: BudgetMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.replica = secrets.token_hex(8)
        self._lease = lease
        self._thread = thread
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._subjects: dict[tuple[str, str], _Subject] = {}
        self._held: dict[str, _Held] = {}
        self._due: set[_Subject] = set()
        self._round: asyncio.Future[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._away_since: float | None = None
        self._warned: dict[tuple[str, str, str], datetime] = {}

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
        cost: Cost = {unit: sum(each[unit] for each in costs) for unit in UNITS}
        every = [(subject, line) for subject in subjects for line in subject.lines]
        for rounds_left in reversed(range(_ROUNDS)):
            with self._lock:
                short = self._short(every, cost)
                if not short:
                    self._take(every, cost, requests, costs)
                    return
                if not rounds_left:
                    raise self._refused(short, cost)
                for _, line in short:
                    line.waiting += cost[line.unit]
            try:
                await self._ask({subject for subject, _ in short})
            finally:
                with self._lock:
                    for _, line in short:
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
            if self._away_since is not None:
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
        actual: Cost = {
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
            if any(now >= line.asked_at + ASK_SECONDS for line in subject.lines)
        }
        if old and self._away_since is None:
            await self._ask(old)

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Once a second, until cancelled: give back what is not needed, lease what will be."""
        while True:
            await sleep(ASK_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Do what is due once a second."""
        today, now = self._now(), self._clock()
        with self._lock:
            for name, subject in list(self._subjects.items()):
                for line in subject.lines:
                    line.turn(today)
                    line.tick()
                    self._warn(subject, line)
                spare = subject.paced_until < now + _FIRST_ASKS / 2
                if spare and any(line.due(now) for line in subject.lines):
                    self._due.add(subject)
                elif now > subject.used_at + _IDLE_SECONDS and not any(
                    line.left or line.in_use or line.waiting for line in subject.lines
                ):
                    del self._subjects[name]
            due = bool(self._due)
        if due:
            await self._ask(())

    def close(self) -> None:
        """At the end of the process, off the event loop: give everything back, if that can be."""
        with self._lock:
            asks = []
            for subject in self._subjects.values():
                for line in subject.lines:
                    line.rate = line.spent = line.waiting = 0
                    if line.known:
                        asks.append(line.ask(subject.tenant, subject.key))
        try:
            if asks:
                self._lease(self.replica, asks, patience_seconds=LEASE_PATIENCE_SECONDS)
        except StoreError as error:
            LOG.warning("budgets could not be given back; they expire: %s", error)
        self._thread.close()

    def _subjects_of(self, caller: Principal) -> list[_Subject]:
        found = []
        if caller.tenant_limits is not None:
            found.append(self._subject(caller.tenant, "", caller.tenant_limits))
        if caller.limits is not None and caller.key is not None:
            found.append(self._subject(caller.tenant, caller.key, caller.limits))
        return [subject for subject in found if subject.lines]

    def _subject(self, tenant: str, key: str, limits: KeyLimits) -> _Subject:
        with self._lock:
            subject = self._subjects.get((tenant, key))
            if subject is None:
                lines = _lines(limits, {}, month_of(self._now()))
                subject = _Subject(tenant, key, limits, lines, self._clock())
                self._subjects[tenant, key] = subject
            elif subject.limits is not limits and subject.limits != limits:
                old = {line.name: line for line in subject.lines}
                subject.lines = _lines(limits, old, month_of(self._now()))
                subject.limits = limits
            subject.used_at = self._clock()
            return subject

    def _short(self, every: Sequence[_Its], cost: Cost) -> list[_Its]:
        """The lines of which too little is leased, and that the store should be asked about.

        Raises:
            QuotaExceededError: there is no use in asking.
            StoreError: see `_alone`.
        """
        now, today = self._clock(), self._now()
        for _, line in every:
            line.turn(today)
        if self._alone(now):
            if not all(line.known for _, line in every):
                raise _unknown()
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
            if line.refuses(cost[line.unit], now) or subject.paced_until > now + _FIRST_ASKS
        ]
        if hopeless:
            for _, line in short:
                line.spent += min(cost[line.unit], line.most or 0)
            raise self._refused(hopeless, cost)
        return short

    def _take(
        self, every: Sequence[_Its], cost: Cost, requests: Sequence[Request], costs: Sequence[Cost]
    ) -> None:
        now = self._clock()
        alone = self._away_since is not None
        for subject, line in every:
            if alone:
                line.take_alone(cost[line.unit], now)
            else:
                line.take(cost[line.unit])
            self._warn(subject, line)
        for request, its in zip(requests, costs, strict=True):
            parts = [(line, its[line.unit], line.month) for _, line in every]
            self._held[request.origin.request_id] = parts

    def _alone(self, now: float) -> bool:
        """Whether the store is away, and decisions are made without it.

        Raises:
            StoreError: it has been for too long.
        """
        if self._away_since is None:
            return False
        if now >= self._away_since + STALE_SECONDS:
            raise _unknown()
        return True

    def _refused(self, short: Sequence[_Its], cost: Cost) -> QuotaExceededError:
        now, today = self._clock(), self._now()
        errors = [
            (refusal(subject.owner, line, cost[line.unit], now, today), line) for subject, line in short
        ]
        error, line = max(errors, key=lambda each: each[0].retry_after_seconds or 0.0)
        self._metrics.refused.inc(1, line.name)
        return error

    def _give_back(self, request_id: str, actual: Cost) -> None:
        with self._lock:
            held = self._held.pop(request_id, None)
            for line, amount, month in held or ():
                line.give(amount - (0 if line.places else min(amount, actual[line.unit])), month)

    def _warn(self, subject: _Subject, line: BudgetLine) -> None:
        """Tell once a month that a soft limit is passed."""
        name = (subject.tenant, subject.key, line.name)
        if line.warns and self._warned.get(name) != line.month:
            self._warned[name] = line.month
            self._metrics.warnings.inc(1, line.name)
            whose = f"key {subject.key} of " if subject.key else ""
            message = "%stenant %s is past its soft limit %s: %d of %d"
            LOG.warning(message, whose, subject.tenant, line.name, line.used(0.0), line.soft)

    async def _ask(self, subjects: Iterable[_Subject]) -> None:
        """Have the store asked about these, with everything else that is due; returns once it has answered or
        failed."""
        self._due.update(subjects)
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        mine = self._round
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask_all())
        await asyncio.shield(mine)

    async def _ask_all(self) -> None:
        try:
            while self._round is not None:
                done, self._round = self._round, None
                try:
                    await self._one_round()
                finally:
                    done.set_result(None)
        finally:
            self._asking = None

    async def _one_round(self) -> None:
        with self._lock:
            now, asked = self._clock(), []
            for subject in self._due:
                subject.paced_until = max(subject.paced_until, now) + ASK_SECONDS
                asked += [(line, line.ask(subject.tenant, subject.key)) for line in subject.lines]
            self._due.clear()
        asks: list[LeaseAsk] = [ask for _, ask in asked]
        answers: list[LeaseAnswer] = []
        try:
            answers = await self._thread.run(
                self._lease, self.replica, asks, patience_seconds=LEASE_PATIENCE_SECONDS
            )
        except Exception as error:  # whatever it was, the next round may work
            self._failed(error)
        else:
            if self._away_since is not None:
                LOG.warning("budgets are leased again")
            self._away_since = None
        with self._lock:
            now = self._clock()
            if not answers:
                for line, ask in asked:
                    line.failed(ask)
            for (line, ask), answer in zip(asked, answers, strict=False):
                line.answered(ask, answer, now)

    def _failed(self, error: Exception) -> None:
        self._metrics.failures.inc()
        if self._away_since is None:
            known = isinstance(error, StoreError | ChorusError)
            message = "budgets cannot be leased; what is known of them serves for %.0f s: %s"
            LOG.warning(message, STALE_SECONDS, error, exc_info=None if known else error)
            self._away_since = self._clock()


def _cost(request: Request) -> Cost:
    """What a request may cost at most."""
    return {"requests": 1, "tokens": most_tokens(request), "work_units": work_units(request)}


def _unknown() -> StoreError:
    return StoreError("The database does not say what may still be used: check it.")


def _lines(limits: KeyLimits, old: dict[str, BudgetLine], month: datetime) -> list[BudgetLine]:
    """The lines of a document, each with what the old one of its name knows."""
    found = []
    for window in WINDOWS:
        amounts: Any = getattr(limits, window)
        for unit in UNITS:
            limit = None if amounts is None else getattr(amounts, unit)
            if limit is None:
                continue
            most, soft = (limit.hard, limit.soft) if window == "per_month" else (limit, None)
            if most is None and soft is None:
                continue
            line = old.get(f"{window}.{unit}") or BudgetLine(window, unit, most, soft, month)
            line.most, line.soft, line.short = most, soft, False
            found.append(line)
    return found
