"""Sessions of the console: a key is shown once, and the token in a browser's cookie stands for it then.

A session gives nothing of its own: at each use the key behind it is looked at like any key, in `Callers`. So
what ends a key, or takes a scope from it, does so for its sessions, and as fast. See docs/decisions/0027.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from chorus_server.errors import UnauthenticatedError
from chorus_server.tenancy.callers import Ask, Callers
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.base import utc_now
from prompts_store.store import PromptStore
from prompts_store.tenants.key_format import public_part
from prompts_store.tenants.records import Session

SESSION_TIME = timedelta(hours=12)
"""From signing in to the end of a session, however much it is used: a working day."""

_TOKEN = re.compile(r"cs_[A-Za-z0-9_-]{43}")
_OVER = "Sign in again: the session is over."


class Sessions:
    """Opens, ends and looks up sessions. Used on the event loop.

    Args:
        callers: settles whom a key stands for.
        ask: puts questions to the store; see `PromptLibrary.ask`.
        save: runs a writing call of the store off the event loop.
        now: this moment, in UTC.
    """

    def __init__(
        self,
        store: PromptStore,
        callers: Callers,
        ask: Ask,
        save: Callable[..., Awaitable[Any]],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._callers = callers
        self._ask = ask
        self._save = save
        self._now = now

    async def open(self, key: str, address: str) -> tuple[str, int]:
        """Sign in with a key: a new token, and for how many seconds it is good.

        Args:
            address: where the request comes from.

        Raises:
            UnauthenticatedError, ForbiddenError, QuotaExceededError, StoreError: as of `Callers.authorise`.
        """
        caller = await self._callers.authorise(f"Bearer {key}", None, address)
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
        return token, int(SESSION_TIME.total_seconds())

    async def end(self, token: str) -> None:
        """Sign out. What is no session's token changes nothing."""
        if _TOKEN.fullmatch(token):
            await self._save(self._store.end_session, _digest(token))

    async def authorise(self, token: str, scope: Scope | None, address: str) -> Principal:
        """Whom a token stands for now.

        Raises:
            UnauthenticatedError: the session is over, or its key is.
            ForbiddenError, StoreError: as of `Callers.authorise`.
        """
        found: Session | None = None
        if _TOKEN.fullmatch(token):
            digest = _digest(token)
            found = await self._ask(lambda: self._store.find_session(digest), spared=False)
        if found is None:
            raise UnauthenticatedError(_OVER)
        return await self._callers.of_session(found, token, scope, address)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
