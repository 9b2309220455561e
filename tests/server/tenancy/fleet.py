"""Several processes' budgets on one database, in one process and on one clock, which only the test moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from chorus_server.engine.requests import GenerateRequest, Origin
from chorus_server.engine.sampling import Sampling
from chorus_server.engine.work import Settled
from chorus_server.errors import QuotaExceededError
from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.budgets import Budgets
from chorus_server.tenancy.metrics import BudgetMetrics
from chorus_server.tenancy.principal import Principal
from prompts_store.budgets.records import LeaseAnswer, LeaseAsk
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore
from prompts_store.tenants.limits import KeyLimits, TenantLimits

P = ParamSpec("P")
T = TypeVar("T")

START = datetime(2026, 3, 10, 12, tzinfo=UTC)
_IDS = itertools.count()


def limited(limits: dict[str, Any], key_limits: dict[str, Any] | None = None) -> Principal:
    """A caller with these limits of its tenant and its key."""
    own = None if key_limits is None else KeyLimits.model_validate(key_limits)
    tenant = TenantLimits.model_validate(limits) if limits else None
    return Principal("acme", "k", key="key-1", limits=own, tenant_limits=tenant)


def item(tokens: int = 4, max_new_tokens: int = 6) -> GenerateRequest:
    """A request for one item."""
    origin = Origin(f"id.{next(_IDS)}", "acme")
    return GenerateRequest(origin, (tuple(range(tokens)),), Sampling(max_new_tokens=max_new_tokens))


class Replica:
    """One process's budgets.

    Attributes:
        asked: how often its store was asked.
        away: whether its store does not answer.
        ahead_seconds: by how much its clock is ahead of the others'.
    """

    def __init__(self, store: PromptStore, clock: Callable[[], float]) -> None:
        self.store = store
        self.asked, self.away, self.ahead_seconds = 0, False, 0.0
        self._clock = clock
        self.metrics = BudgetMetrics(MetricsRegistry())
        self.budgets = Budgets(self._lease, self, self.metrics, clock=clock, now=self.now)

    def now(self) -> datetime:
        return START + timedelta(seconds=self._clock() + self.ahead_seconds)

    def _lease(self, replica: str, asks: Sequence[LeaseAsk], **options: Any) -> list[LeaseAnswer]:
        self.asked += 1
        if self.away:
            raise StoreError("The database did not answer.")
        found: list[LeaseAnswer] = self.store.lease_budgets(replica, asks, **options)
        return found

    async def run(self, function: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> T:
        return function(*args, **options)

    def close(self) -> None:
        """It has no thread of its own."""

    async def take(self, caller: Principal, count: int = 1, **size: int) -> list[GenerateRequest] | None:
        """What was admitted: `count` items in one call, or None."""
        requests = [item(**size) for _ in range(count)]
        try:
            await self.budgets.reserve(caller, requests)
        except QuotaExceededError:
            return None
        return requests

    def settle(self, requests: Sequence[GenerateRequest], tokens_out: int = 6) -> None:
        """They were answered with so many tokens each."""
        for each in requests:
            tokens = len(each.input[0]) if isinstance(each.input[0], tuple) else 0
            done = Settled(each.origin, "answered", tokens, tokens_out, tokens + tokens_out)
            self.budgets.settle(done)


class Fleet:
    """Replicas on one database.

    Attributes:
        seconds: the time on everybody's clock.
    """

    def __init__(self, stores: Sequence[PromptStore]) -> None:
        self.seconds = 0.0
        self.replicas = [Replica(store, lambda: self.seconds) for store in stores]
        for each in self.replicas:
            each.store._clock = self.now

    def now(self) -> datetime:
        """By the database's clock."""
        return START + timedelta(seconds=self.seconds)

    async def tick(self, seconds: float = 1.0) -> None:
        """Time passes, and each does what it does once a second."""
        self.seconds += seconds
        for each in self.replicas:
            await each.budgets.tick()


@contextmanager
def fleet(folder: Path, count: int, *, url: str | None = None, apart: bool = False) -> Iterator[Fleet]:
    """So many replicas, each with a store of its own on one database; or `apart`, and each takes every limit
    for its own alone."""
    stores = [
        PromptStore.in_memory() if apart else PromptStore.open(folder, database_url=url) for _ in range(count)
    ]
    try:
        yield Fleet(stores)
    finally:
        for store in stores:
            store.close()


def play(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 1500))
