"""Callers on a store in a file, with everything that they stand on; the clocks are the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from chorus_server.changes.reader import ChangeReader
from chorus_server.errors import ForbiddenError, QuotaExceededError, UnauthenticatedError
from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.callers import Callers
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.last_use import LastUse
from chorus_server.tenancy.metrics import TenancyMetrics
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore
from tests.server.connections.bounded_harness import Clock

T = TypeVar("T")
HERE = "192.0.2.1"
FILE_KEY = "o" * 32


class House:
    """Callers on a store, with everything that they stand on.

    Attributes:
        asked: questions that were put to the store.
        fails: whether it does not answer.
    """

    def __init__(
        self, folder: Path, *, keyless: bool = True, ring: dict[str, Principal] | None = None
    ) -> None:
        self.store = PromptStore.open(folder)
        self.store.ensure_tenant("default")
        self.clock, self.now = Clock(), datetime.now(UTC)
        self.asked, self.fails = 0, False
        self.last_use = LastUse(self.store, self.run, lambda: self.now)
        self.metrics = TenancyMetrics(MetricsRegistry())
        self.callers = Callers(
            self.store,
            KeyRing(ring or {}, Principal("default", "anonymous", keyless=True)),
            self.ask,
            self.last_use,
            self.metrics,
            keyless=keyless,
            clock=self.clock,
            now=lambda: self.now,
        )
        self.reader = ChangeReader(self.store, self, [self.callers], lambda _: None, self.clock)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        if self.fails:
            raise StoreError("The database did not answer.")
        return await asyncio.to_thread(function, *args)

    def close(self) -> None:
        """It has no thread of its own."""

    async def ask(self, question: Callable[[], T], *, spared: bool) -> T | None:
        self.asked += 1
        if self.fails and spared:
            return None
        return await self.run(question)

    def key(self, tenant: str = "default", name: str = "k", **options: Any) -> tuple[str, str]:
        """A fresh key's id and the header that carries it."""
        made, secret = self.store.create_key(tenant, name, **({"scopes": ["infer"]} | options))
        return made.id, f"Bearer {secret}"

    async def who(
        self, header: str | None, scope: Scope | None = Scope.INFER, address: str = HERE
    ) -> Principal:
        return await self.callers.authorise(header, scope, address)

    async def code(self, header: str | None, scope: Scope | None = Scope.INFER, address: str = HERE) -> str:
        try:
            await self.who(header, scope, address)
        except (UnauthenticatedError, ForbiddenError, QuotaExceededError) as error:
            return error.code
        return "let in"


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(scenario(), 300)  # type: ignore[arg-type]

    asyncio.run(bounded())
