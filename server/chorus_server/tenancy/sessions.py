"""Sessions of the console: a key is shown once, and the token in a browser's cookie stands for it then.

A session gives nothing of its own: at each use the key behind it is looked at like any key, in `Callers`. So
what ends a key, or takes a scope from it, does so for its sessions, and as fast. See docs/decisions/0027.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from chorus_server.changes.memory import Memory
from chorus_server.errors import UnauthenticatedError
from chorus_server.tenancy.callers import Ask, Callers
from chorus_server.tenancy.guesses import Guesses
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.base import utc_now
from prompts_store.store import PromptStore
from prompts_store.tenants.key_format import public_part
from prompts_store.tenants.records import Session

SESSION_TIME = timedelta(hours=12)
"""From signing in to the end of a session, however much it is used: a working day."""

_MOST_KEPT = 1 << 14
_MOST_UNKNOWN = 1 << 13
_UNKNOWN_SECONDS = 60.0
"""What is no session's token never becomes one."""

_TOKEN = re.compile(r"cs_[A-Za-z0-9_-]{43}")
_OVER = "Sign in again: the session is over."


class Sessions:
    """Opens, ends and looks up sessions. Used on the event loop.

    A session that was looked up is remembered for a second, so that one that another process ended is over
    here in that time; while the store does not answer, for as long as keys are. Like keys, sessions that are
    not there are looked for a few times a second for each address.

    Args:
        callers: settles whom a key stands for.
        ask: puts questions to the store; see `PromptLibrary.ask`.
        save: runs a writing call of the store off the event loop.
        now: this moment, in UTC.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: PromptStore,
        callers: Callers,
        ask: Ask,
        save: Callable[..., Awaitable[Any]],
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._callers = callers
        self._ask = ask
        self._save = save
        self._now = now
        self._kept: Memory[str, Session] = Memory(clock, most=_MOST_KEPT)
        self._unknown: Memory[str, bool] = Memory(clock, fresh_seconds=_UNKNOWN_SECONDS, most=_MOST_UNKNOWN)
        self._guesses = Guesses(clock)

    async def open(self, key: str, address: str) -> str:
        """Sign in with a key: a new token.

        Args:
            address: where the request comes from.

        Raises:
            UnauthenticatedError: it is no key, also where none is needed.
            ForbiddenError, QuotaExceededError, StoreError: as of `Callers.authorise`.
        """
        caller = await self._callers.authorise(f"Bearer {key}", None, address)
        if caller.keyless:
            raise UnauthenticatedError("That is no key, and none is needed here.")
        token = f"cs_{secrets.token_urlsafe(32)}"
        of_file = caller.key is None
        await self._save(
            self._store.open_session,
            caller.tenant,
            _digest(token),
            public=None if of_file else public_part(key),
            seal=self._callers.ring.seal(key, token) if of_file else None,
            expires_at=self._now() + SESSION_TIME,
        )
        return token

    async def end(self, token: str) -> None:
        """Sign out. What is no session's token changes nothing."""
        if _TOKEN.fullmatch(token):
            digest = _digest(token)
            await self._save(self._store.end_session, digest)
            self._kept.drop(digest)

    async def authorise(self, token: str, scope: Scope | None, address: str) -> Principal:
        """Whom a token stands for now.

        Raises:
            UnauthenticatedError: the session is over, or its key is.
            QuotaExceededError: too many tokens that nobody has came from this address.
            ForbiddenError, StoreError: as of `Callers.authorise`.
        """
        found = await self._find(_digest(token), address) if _TOKEN.fullmatch(token) else None
        if found is None or found.expires_at <= self._now():
            raise UnauthenticatedError(_OVER)
        return await self._callers.of_session(found, token, scope, address)

    async def _find(self, digest: str, address: str) -> Session | None:
        if (kept := self._kept.fresh(digest)) is not None:
            return kept
        if self._unknown.fresh(digest):
            return None
        spare = self._kept.spare(digest)
        self._guesses.begin(address, digest)
        asked, asked_unknown = self._kept.asking(), self._unknown.asking()
        said = await self._ask(lambda: (self._store.find_session(digest),), spared=spare is not None)
        if said is None:
            return spare
        (found,) = said
        if found is None:
            self._unknown.keep({digest: True}, asked_unknown)
        else:
            self._guesses.found(address, digest)
            self._kept.keep({digest: found}, asked)
        return found


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
