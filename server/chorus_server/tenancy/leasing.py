"""Asks the store for budgets: one question at a time, for everybody who waits and everything that is due."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chorus_server.changes.memory import STALE_SECONDS
from chorus_server.changes.reader import Thread
from chorus_server.errors import ChorusError
from chorus_server.tenancy.budget_line import LEASE_EVERY_SECONDS, BudgetLine
from chorus_server.tenancy.metrics import BudgetMetrics
from chorus_server.tenancy.quota import Owner
from prompts_store.budgets.records import UNITS, WINDOWS, LeaseAnswer, LeaseAsk
from prompts_store.errors import StoreError
from prompts_store.tenants.limits import KeyLimits

LOG = logging.getLogger("chorus.budgets")

LEASE_PATIENCE_SECONDS = 1.0
"""How long a question waits for the publish lock."""

_FIRST_ASKS = 60
"""Questions that a tenant or a key may put before it is one a second."""

_DUE_AT_ONCE = 256
"""Subjects that are asked about in one transaction without anybody waiting for it."""

AskStore = Callable[..., list[LeaseAnswer]]
"""See `BudgetLeases.lease_budgets`."""


@dataclass(slots=True, eq=False)
class Subject:
    """A tenant, or with `key` one of its keys, and its limits.

    Attributes:
        used_at: when somebody asked for it last.
        paced_until: moves on a second with each question.
    """

    tenant: str
    key: str
    limits: KeyLimits
    lines: list[BudgetLine]
    used_at: float
    paced_until: float = 0.0

    @property
    def owner(self) -> Owner:
        """Whose limits these are."""
        return "key" if self.key else "tenant"

    def asks_too_often(self, now: float) -> bool:
        """Whether it has to wait before it may ask again."""
        return self.paced_until > now + _FIRST_ASKS

    def may_ask_idly(self, now: float) -> bool:
        """Whether it may ask while nobody waits: half of its questions are kept for those who do."""
        return self.paced_until < now + _FIRST_ASKS / 2

    def change(self, limits: KeyLimits, month: datetime) -> None:
        """Go by other limits; what is known of each that stays is kept."""
        self.limits = limits
        self.lines = lines_of(limits, {line.name: line for line in self.lines}, month)


class Leasing:
    """Questions on their way to the store. Belongs to the event loop.

    Args:
        ask_store: asks the store; on `thread`.
        lock: guards the lines, which other threads change too. Never held while the store is asked.

    Attributes:
        replica: this process, to the store.
        away_since: when the store did not answer first, on the clock; None while it answers.
    """

    def __init__(
        self,
        ask_store: AskStore,
        thread: Thread,
        metrics: BudgetMetrics,
        lock: threading.Lock,
        clock: Callable[[], float],
    ) -> None:
        self.replica = secrets.token_hex(8)
        self.away_since: float | None = None
        self._ask_store = ask_store
        self._thread = thread
        self._failures = metrics.failures
        self._lock = lock
        self._clock = clock
        self._wanted: set[Subject] = set()
        self._due: set[Subject] = set()
        self._round: asyncio.Future[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def alone(self, now: float) -> bool:
        """Whether the store is away, and decisions are made without it.

        Raises:
            StoreError: it has been for too long.
        """
        if self.away_since is None:
            return False
        if now >= self.away_since + STALE_SECONDS:
            raise unknown()
        return True

    async def ask(self, subjects: Iterable[Subject]) -> None:
        """Have the store asked about these; returns once it has answered or failed."""
        self._wanted.update(subjects)
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        mine = self._round
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask_all())
        await asyncio.shield(mine)

    async def ask_idly(self, subjects: Iterable[Subject]) -> None:
        """The same for subjects that nobody waits for: a few at a time, so that whoever waits goes first."""
        self._due.update(subjects)
        while self._due:
            await self.ask(())

    def give_all_back(self, subjects: Iterable[Subject]) -> None:
        """At the end of the process, off the event loop: if that can be."""
        asks = []
        with self._lock:
            for subject in subjects:
                for line in subject.lines:
                    line.rate = line.spent = line.waiting = 0
                    if line.known:
                        asks.append(line.ask(subject.tenant, subject.key))
        try:
            if asks:
                self._ask_store(self.replica, asks, patience_seconds=LEASE_PATIENCE_SECONDS)
        except StoreError as error:
            LOG.warning("budgets could not be given back; they expire: %s", error)
        self._thread.close()

    async def _ask_all(self) -> None:
        try:
            while self._round is not None:
                done, self._round = self._round, None
                try:
                    await self._ask_once()
                finally:
                    done.set_result(None)
        finally:
            self._asking = None

    async def _ask_once(self) -> None:
        subjects, self._wanted = self._wanted, set()
        while self._due and len(subjects) < _DUE_AT_ONCE:
            subjects.add(self._due.pop())
        asked: list[tuple[BudgetLine, LeaseAsk]] = []
        with self._lock:
            now = self._clock()
            for subject in subjects:
                subject.paced_until = max(subject.paced_until, now) + LEASE_EVERY_SECONDS
                asked += [(line, line.ask(subject.tenant, subject.key)) for line in subject.lines]
        answers: Sequence[LeaseAnswer] | None = None
        try:
            answers = await self._thread.run(
                self._ask_store,
                self.replica,
                [ask for _, ask in asked],
                patience_seconds=LEASE_PATIENCE_SECONDS,
            )
        except Exception as error:  # whatever it was, the next question may be answered
            self._failed(error)
        with self._lock:
            if answers is None:
                for line, ask in asked:
                    line.failed(ask)
                return
            now = self._clock()
            for (line, ask), answer in zip(asked, answers, strict=True):
                line.answered(ask, answer, now)
        if self.away_since is not None:
            LOG.warning("budgets are leased again")
            self.away_since = None

    def _failed(self, error: Exception) -> None:
        self._failures.inc()
        if self.away_since is None:
            known = isinstance(error, StoreError | ChorusError)
            message = (
                "the database does not say what may still be used; what it said last serves for %.0f s: %s"
            )
            LOG.warning(message, STALE_SECONDS, error, exc_info=None if known else error)
            self.away_since = self._clock()


def unknown() -> StoreError:
    """A new error for each request, because a raised exception collects tracebacks."""
    return StoreError("The database does not say what may still be used: check it.")


def lines_of(limits: KeyLimits, old: dict[str, BudgetLine], month: datetime) -> list[BudgetLine]:
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
