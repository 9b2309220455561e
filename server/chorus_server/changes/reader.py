"""Follows the store's change feed, and tells whoever remembers something of the store what changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar, get_args

from chorus_server.errors import OverloadedError
from prompts_store.errors import StoreError
from prompts_store.pages import MAX_LIMIT
from prompts_store.store import PromptStore
from prompts_store.tenants.records import Change, ChangeKind

P = ParamSpec("P")
T = TypeVar("T")

LOG = logging.getLogger("chorus.changes")

READ_EVERY_SECONDS = 0.25
READ_SECONDS = 1.0
"""How long a reading may take; the thread that still reads is not asked again before it has ended."""

_KNOWN: frozenset[str] = frozenset(get_args(ChangeKind))


class Rememberer(Protocol):
    """Whoever keeps something of the store in memory. Called on the event loop."""

    def changed(self, changes: Sequence[Change]) -> None:
        """Drop what these concern."""

    def forget(self) -> None:
        """Drop everything."""

    def confirm(self, at: float) -> None:
        """At that time, on the monotonic clock, all else was as it is remembered."""


class Thread(Protocol):
    """Where the store is read, off the event loop."""

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result. OverloadedError: it is taken."""

    def close(self) -> None:
        """Let a running call end."""


class ChangeReader:
    """Reads the feed every 250 ms. Where it begins, and where it has fallen too far behind, all is dropped.

    Args:
        thread: its own; it refuses a call while it is taken.
        rememberers: whom to tell.
        note: told after each reading whether it succeeded.
        clock: monotonic seconds, the same as the rememberers'.
    """

    def __init__(
        self,
        store: PromptStore,
        thread: Thread,
        rememberers: Sequence[Rememberer],
        note: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._thread = thread
        self._rememberers = rememberers
        self._note = note
        self._clock = clock
        self._last: int | None = None
        self._reading = asyncio.Lock()

    def tell(self, rememberer: Rememberer) -> None:
        """Tell one more, from the next reading on."""
        self._rememberers = (*self._rememberers, rememberer)

    async def follow(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Read again and again, until cancelled."""
        while True:
            await self.read()
            await sleep(READ_EVERY_SECONDS)

    async def read(self) -> bool:
        """Read what is new, and tell it: all that was written before the call. Whether that succeeded."""
        try:
            async with self._reading, asyncio.timeout(READ_SECONDS):
                while not await self._read_some():
                    pass
        except Exception as error:  # whatever it was, the next may work, and until then nothing is trusted
            known = isinstance(error, TimeoutError | StoreError | OverloadedError)
            LOG.log(
                logging.DEBUG if known else logging.WARNING,
                "the change feed could not be read: %s",
                error,
                exc_info=None if known else error,
            )
            self._note(False)
            return False
        self._note(True)
        return True

    async def _read_some(self) -> bool:
        """Read and tell the next part. Whether there was no more at that time."""
        at = self._clock()
        if self._last is None:
            self._last = await self._thread.run(self._store.last_change)
            self._forget_all()
        else:
            found = await self._thread.run(self._store.changes_after, self._last)
            self._last = found.last
            if found.behind or any(change.kind not in _KNOWN for change in found.items):
                self._forget_all()
            elif found.items:
                for each in self._rememberers:
                    each.changed(found.items)
            if len(found.items) == MAX_LIMIT:
                return False
        for each in self._rememberers:
            each.confirm(at)
        return True

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    def _forget_all(self) -> None:
        for each in self._rememberers:
            each.forget()
