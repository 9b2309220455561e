"""Whether the store can be read and changed, as its calls showed and as a check each second shows. For
`/readyz`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from chorus_server.api.http.offload import Offload
from chorus_server.changes.memory import SEEN_SECONDS, STALE_SECONDS
from prompts_store.store import PromptStore

LOOK_SECONDS = 1.0
"""Seconds from one check to the next, and how long the store's answer may take. Shorter trouble does not
matter."""

_UNREADABLE = (
    f"The database does not answer: keys and references used in the last {STALE_SECONDS:g} s mean what they "
    "meant then, others get 'store_unavailable'. Check the database, its disk and its network."
)
_UNWRITABLE = (
    "The database accepts no changes: uploads, alias moves and jobs wait; inference and reads go on. Find "
    "out which program holds its lock, and whether its disk is full or read-only."
)


_UNFOLLOWED = (
    "What other processes change cannot be followed: each key and reference is looked up anew, and where "
    f"that fails too it means for {STALE_SECONDS:g} s what it meant before. Check the database."
)


class StoreHealth:
    """What is known of the store's state. Used on the event loop.

    Args:
        clock: gives monotonic seconds.
    """

    def __init__(self, store: PromptStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reads = _Probe(store.check_readable, "store reads")
        # It gives up before the check does, so that the next check asks again.
        self._writes = _Probe(partial(store.check_writable, 0.8 * LOOK_SECONDS), "store writes")
        self._unreadable_since: float | None = None
        self._unwritable_since: float | None = None
        self._unfollowed_since: float | None = None
        self._asked_at = -LOOK_SECONDS

    async def watch(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Check again and again, until cancelled."""
        while True:
            await self.look()
            await sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Check whether the store can be read and changed, on its own threads. What can be changed can be
        read."""
        writable = await self._writes.answered()
        self.note_read(writable or await self._reads.answered())
        self._unwritable_since = None if writable else self._since(self._unwritable_since)

    def note_read(self, answered: bool) -> None:
        """Note whether a read was answered. It was not if it failed or took too long."""
        self._unreadable_since = None if answered else self._since(self._unreadable_since)

    def note_feed(self, answered: bool) -> None:
        """The change feed was read, or could not be."""
        self._unfollowed_since = None if answered else self._since(self._unfollowed_since)

    def _since(self, before: float | None) -> float:
        return self._clock() if before is None else before

    def worth_asking(self) -> bool:
        """Whether a caller who has a spare answer should wait for the store. While it cannot be read, one
        caller each second should."""
        now = self._clock()
        if self._unreadable_since is not None and now - self._asked_at < LOOK_SECONDS:
            return False
        self._asked_at = now
        return True

    @property
    def serves(self) -> bool:
        """Whether requests can be answered: False once no spare answer is good any more."""
        now = self._clock()
        troubles = (self._unreadable_since, self._unfollowed_since)
        return all(since is None or now - since < STALE_SECONDS for since in troubles)

    def report(self) -> dict[str, Any] | None:
        """What is wrong, for `/readyz`; None when nothing is."""
        for status, since, message, least in (
            ("unreadable", self._unreadable_since, _UNREADABLE, 0.0),
            ("unfollowed", self._unfollowed_since, _UNFOLLOWED, SEEN_SECONDS),
            ("unwritable", self._unwritable_since, _UNWRITABLE, 0.0),
        ):
            if since is not None and self._clock() - since >= least:
                return {
                    "status": status,
                    "since_seconds": round(self._clock() - since, 1),
                    "message": message,
                }
        return None

    def close(self) -> None:
        """Stop the threads."""
        self._reads.close()
        self._writes.close()


class _Probe:
    """One question to the store, on its own thread. It is asked again only once the last call has ended."""

    def __init__(self, question: Callable[[], None], name: str) -> None:
        self._question = question
        self._thread = Offload(1, 1, name)
        self._asked: asyncio.Future[None] | None = None

    async def answered(self) -> bool:
        # What a call found that has ended since may be long ago.
        if self._asked is None or self._asked.done():
            self._asked = asyncio.ensure_future(self._thread.run(self._question))
            self._asked.add_done_callback(_succeeded)  # so that asyncio does not warn of what nobody read
        done, _ = await asyncio.wait({self._asked}, timeout=LOOK_SECONDS)
        return bool(done) and _succeeded(self._asked)

    def close(self) -> None:
        self._thread.close()


def _succeeded(call: asyncio.Future[None]) -> bool:
    return not call.cancelled() and call.exception() is None
