"""When keys were used last: noted in memory, and written together once a minute."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from chorus_server.errors import ChorusError
from prompts_store.base import utc_now
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore

LOG = logging.getLogger("chorus.tenancy")

WRITE_SECONDS = 60.0


class LastUse:
    """Uses since they were last written.

    Args:
        save: runs a writing call of the store off the event loop.
        now: this moment, in UTC.
    """

    def __init__(
        self,
        store: PromptStore,
        save: Callable[..., Awaitable[Any]],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._save = save
        self._now = now
        self._used: dict[str, datetime] = {}

    def note(self, key: str) -> None:
        """A key was used now. On the event loop; costs a look at the clock."""
        self._used[key] = self._now()

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Write once a minute, until cancelled."""
        while True:
            await sleep(WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write what was noted; where that fails it is kept, and written next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._save(self._store.touch_keys, used)
        except BaseException as error:
            self._used = used | self._used
            if not isinstance(error, StoreError | ChorusError):
                raise
            LOG.warning("when keys were used last could not be written; it is tried again: %s", error)

    def write_rest(self) -> None:
        """At the end of the process, off the event loop: write what is left, if that can be."""
        used, self._used = self._used, {}
        try:
            if used:
                self._store.touch_keys(used)
        except StoreError as error:
            LOG.warning("when keys were used last could not be written: %s", error)
