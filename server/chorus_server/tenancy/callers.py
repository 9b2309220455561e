"""Who asks: from an `Authorization` header to a `Principal`, by what is remembered of the store's keys.

A key that is remembered costs no query and no thread. One that is not is looked up once, however many ask
for it at the same time; while the store does not answer, what was known last serves for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from chorus_server.changes.memory import Memory
from chorus_server.errors import ForbiddenError, QuotaExceededError, UnauthenticatedError
from chorus_server.tenancy.guesses import Guesses
from chorus_server.tenancy.keys import MAX_KEY_CHARACTERS, KeyRing
from chorus_server.tenancy.last_use import LastUse
from chorus_server.tenancy.metrics import TenancyMetrics
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.base import utc_now
from prompts_store.errors import NotFoundError, StoreError
from prompts_store.store import PromptStore
from prompts_store.tenants.key_format import matches, public_part
from prompts_store.tenants.limits import KeyLimits, TenantLimits
from prompts_store.tenants.records import Change, FoundKey, Session, TenantStatus

T = TypeVar("T")
L = TypeVar("L", bound=KeyLimits)

MOST_KEYS = 1 << 17
"""Keys that are remembered, of a few hundred bytes each."""

ANSWER_SECONDS = 2.0
"""How long a caller of whom nothing is known waits for the store. A request's deadline is not known yet."""

_MOST_UNKNOWN = 1 << 13

_PREFIX = "ck_"
"""Of the store's keys."""

_NO_KEY = "This route needs a key: send 'Authorization: Bearer KEY'."
_BAD_KEY = "The key is not valid: check it, and send 'Authorization: Bearer KEY'."


class Ask(Protocol):
    """Puts a question to the store off the event loop; see `PromptLibrary.ask`."""

    def __call__(self, question: Callable[[], T], *, spared: bool) -> Awaitable[T | None]:
        """The answer; None where it does not come soon and the caller has a spare one."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is remembered of a key.

    Attributes:
        expires_at: from when on it is refused, also where nobody was told.
    """

    principal: Principal
    digest: str
    revoked: bool
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class _TenantState:
    """What is remembered of a tenant, once for all of its keys."""

    status: TenantStatus
    weight: float
    limits: TenantLimits | None = None


class _MustAskError(Exception):
    """What is remembered does not decide it."""


class Callers:
    """Settles who asks. Used on the event loop, except before the server serves.

    Args:
        ring: the keys of files.
        keyless: whether somebody without a key may come in at all, as long as there is no key.
        ask: puts questions to the store.
        last_use: told of each use of a key.
        metrics: counts what is looked up.
        clock: monotonic seconds.
        now: this moment, in UTC.
    """

    def __init__(
        self,
        store: PromptStore,
        ring: KeyRing,
        ask: Ask,
        last_use: LastUse,
        metrics: TenancyMetrics,
        *,
        keyless: bool,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.ring = ring
        self.keyless = keyless
        self.last_use = last_use
        self._lookups = metrics.key_lookups
        self._store = store
        self._ask_store = ask
        self._now = now
        self._guesses = Guesses(clock)
        self._keys: Memory[str, _Standing] = Memory(clock, most=MOST_KEYS)
        self._unknown: Memory[str, bool] = Memory(clock, most=_MOST_UNKNOWN)
        self._tenants: Memory[str, _TenantState] = Memory(clock, most=MOST_KEYS)
        self._kept_keys: Memory[str, bool] = Memory(clock)
        self._asked: dict[tuple[str, str], asyncio.Task[Any]] = {}

    def known(self, authorization: str | None, scope: Scope | None) -> Principal | None:
        """The caller behind an `Authorization` header, where that is known; None where `authorise` must ask.

        Raises:
            UnauthenticatedError, ForbiddenError: as there.
        """
        deciding = self._decide(authorization, scope, None)
        try:
            deciding.send(None)
        except StopIteration as decided:
            caller: Principal = decided.value
            return caller
        except _MustAskError:
            return None
        raise AssertionError("without an address nothing is awaited")

    async def authorise(self, authorization: str | None, scope: Scope | None, address: str) -> Principal:
        """The caller behind an `Authorization` header.

        Args:
            scope: that the key must have; None for any key.
            address: where the request comes from.

        Raises:
            UnauthenticatedError: a key is needed, and none or one that is not good came.
            ForbiddenError: the key lacks the scope; `tenant_suspended`.
            QuotaExceededError: too many keys that nobody has came from this address.
            StoreError: the store does not answer, and nothing that is remembered serves.
        """
        return await self._decide(authorization, scope, address)

    async def of_session(self, session: Session, token: str, scope: Scope | None, address: str) -> Principal:
        """Whom a session of the console stands for: its key, as that is now.

        Args:
            token: the session's, which the browser has.

        Raises:
            UnauthenticatedError: the key was revoked, has expired, or is in no file any more.
            ForbiddenError, StoreError: as of `authorise`.
        """
        principal: Principal | None = None
        if session.public is not None:
            standing = await self._standing(session.public, address)
            if standing is not None and not self._is_over(standing):
                principal = standing.principal
        elif session.seal is not None:
            principal = self.ring.sealed(session.seal, token)
        if principal is None or principal.tenant != session.tenant:
            raise UnauthenticatedError("Sign in again: the key of this session is no longer good.")
        return await self._of_tenant(principal, scope, address)

    async def of_job(self, tenant: str, name: str, key: str | None) -> Principal:
        """Who a job's requests are charged to: its tenant, and the key that made it, if that is still there.

        Args:
            name: the key's name.
            key: its id in the store; None for one from a file, and for no key.

        Raises:
            ForbiddenError, UnauthenticatedError: the tenant was suspended or deleted.
            StoreError: the store does not answer, and nothing that is remembered serves.
        """
        limits: KeyLimits | None = None
        if key is not None:
            limits = await self._ask_store(partial(self._limits_of_key, tenant, key), spared=False)
        return await self._of_tenant(Principal(tenant, name, frozenset(), key=key, limits=limits), None, "")

    def _limits_of_key(self, tenant: str, key: str) -> KeyLimits | None:
        try:
            return _some(self._store.get_key(tenant, key).limits)
        except NotFoundError:
            return None

    async def _decide(self, authorization: str | None, scope: Scope | None, address: str | None) -> Principal:
        """Without an address nothing is asked: `_MustAskError` where that would be needed."""
        secret = _bearer(authorization)
        file = None if secret is None else self.ring.find(secret)
        if file is None and secret is not None and (public := public_part(secret)) is not None:
            standing = await self._standing(public, address)
            if standing is not None and self._is_good(standing, secret):
                return await self._of_tenant(standing.principal, scope, address)
        if file is None:
            # On an open server too: nobody is let in with a key that is no longer good.
            if (secret or "").startswith(_PREFIX) or await self._needs_key(scope, address):
                raise UnauthenticatedError(_NO_KEY if authorization is None else _BAD_KEY)
            file = replace(self.ring.anonymous, keyless=True)
        elif scope is Scope.METRICS:
            # Also while the database is silent: that is when somebody looks at them.
            return self._let_in(file, "active", scope)
        return await self._of_tenant(file, scope, address)

    async def _of_tenant(self, caller: Principal, scope: Scope | None, address: str | None) -> Principal:
        tenant = self._tenants.fresh(caller.tenant)
        if tenant is None:
            question = partial(self._find_tenant, caller.tenant)
            tenant = await self._ask("tenant", self._tenants, caller.tenant, question, address)
        # Whoever runs the machine must be able to resume its tenant.
        runs_it = caller.key is None and not caller.keyless and Scope.OPERATOR in caller.scopes
        if tenant.weight != caller.weight or tenant.limits is not None:
            caller = replace(caller, weight=tenant.weight, tenant_limits=tenant.limits)
        return self._let_in(caller, "active" if runs_it else tenant.status, scope)

    def _is_good(self, standing: _Standing, secret: str) -> bool:
        return matches(secret, standing.digest) and not self._is_over(standing)

    def _is_over(self, standing: _Standing) -> bool:
        expired = standing.expires_at is not None and self._now() >= standing.expires_at
        return standing.revoked or expired

    def _let_in(self, caller: Principal, status: TenantStatus, scope: Scope | None) -> Principal:
        if status == "deleted":
            raise UnauthenticatedError(_BAD_KEY)
        if status != "active":
            raise ForbiddenError(
                "The tenant is suspended: ask whoever operates this server.", code="tenant_suspended"
            )
        if scope is not None and scope not in caller.scopes:
            raise ForbiddenError(f"The key lacks the scope {scope.value!r} that this route needs.")
        if caller.key is not None:
            self.last_use.note(caller.key)
        return caller

    async def _needs_key(self, scope: Scope | None, address: str | None) -> bool:
        if not self.keyless or self.ring.requires(scope):
            return True
        kept = self._kept_keys.fresh("")
        if kept is None:
            kept = await self._ask("any key", self._kept_keys, "", self._store.holds_keys, address)
        return kept

    def _find_tenant(self, tenant: str) -> _TenantState:
        try:
            found = self._store.get_tenant(tenant)
        except NotFoundError:
            return _TenantState("deleted", 1.0)
        return _TenantState(found.status, found.weight, _some(found.limits))

    async def _ask(
        self, what: str, memory: Memory[str, T], key: str, question: Callable[[], T], address: str | None
    ) -> T:
        if address is None:
            raise _MustAskError

        async def ask() -> T:
            asked, spare = memory.asking(), memory.spare(key)
            said = await self._ask_store(question, spared=spare is not None)
            if said is None:
                assert spare is not None
                return spare
            memory.keep({key: said}, asked)
            return said

        return await self._once((what, key), ask)

    async def _once(self, what: tuple[str, str], ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """However many ask the same at one time, the store is asked once, and whoever leaves ends it for
        nobody else."""
        asked: asyncio.Task[T] | None = self._asked.get(what)
        if asked is None:
            asked = self._asked[what] = asyncio.ensure_future(ask())
            asked.add_done_callback(lambda _: self._asked.pop(what, None))
            asked.add_done_callback(_see)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise StoreError(
                "The database does not say who asks: try again, and check it if this goes on."
            ) from None

    async def _standing(self, public: str, address: str | None) -> _Standing | None:
        """What is known of a key; None where nobody has it."""
        standing = self._keys.fresh(public)
        if standing is not None:
            return standing
        if self._unknown.fresh(public):
            return None
        if address is None:
            raise _MustAskError
        return await self._once(("key", public), lambda: self._look_up(public, address))

    async def _look_up(self, public: str, address: str) -> _Standing | None:
        spare = self._keys.spare(public)
        try:
            self._guesses.begin(address, public)
        except QuotaExceededError:
            self._lookups.inc(1, "refused")
            raise
        asked, asked_unknown, asked_tenant = (
            memory.asking() for memory in (self._keys, self._unknown, self._tenants)
        )
        said = await self._ask_store(lambda: _Answer(self._store.find_key(public)), spared=spare is not None)
        if said is None:
            return spare
        self._lookups.inc(1, "unknown" if said.found is None else "found")
        if said.found is None:
            self._unknown.keep({public: True}, asked_unknown)
            return None
        self._guesses.found(address, public)
        found, standing = said.found, _standing_of(said.found)
        self._keys.keep({public: standing}, asked)
        tenant = _TenantState(found.status, found.weight, _some(found.tenant_limits))
        self._tenants.keep({found.key.tenant: tenant}, asked_tenant)
        return standing

    def changed(self, changes: Sequence[Change]) -> None:
        """Drop what changes concern."""
        self._asked.clear()  # whoever asks from now on waits for no question from before
        for change in changes:
            if change.kind.startswith("key_"):
                self._keys.drop(change.subject)
                self._unknown.drop(change.subject)
                self._kept_keys.forget()
            elif change.kind.startswith("tenant_"):
                self._tenants.drop(change.tenant)
                self._kept_keys.forget()

    def forget(self) -> None:
        """Drop everything."""
        self._asked.clear()
        for memory in self._memories():
            memory.forget()

    def confirm(self, at: float) -> None:
        """At that time all else was as it is remembered."""
        for memory in self._memories():
            memory.confirm(at)

    def _memories(self) -> tuple[Memory[Any, Any], ...]:
        return self._keys, self._unknown, self._tenants, self._kept_keys


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the store said, which may be that nobody has the key."""

    found: FoundKey | None


def _bearer(authorization: str | None) -> str | None:
    """The secret in a header; None where there is none that could be one."""
    if authorization is None:
        return None
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    return secret if scheme.lower() == "bearer" and 0 < len(secret) <= MAX_KEY_CHARACTERS else None


def _standing_of(found: FoundKey) -> _Standing:
    key = found.key
    scopes = frozenset(Scope(scope) for scope in key.scopes)
    principal = Principal(
        key.tenant, key.name, scopes, found.weight, key.id, key.tasks, limits=_some(key.limits)
    )
    return _Standing(principal, found.digest, key.revoked_at is not None, key.expires_at)


def _some(limits: L) -> L | None:
    """Limits, where there are any."""
    return limits if limits.document() else None


def _see(asked: asyncio.Task[Any]) -> None:
    """Whoever waited may have left: what went wrong is nobody's concern then."""
    if not asked.cancelled():
        asked.exception()
