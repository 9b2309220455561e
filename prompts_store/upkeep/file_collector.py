"""Removes the bytes of data files that no live file has any more, and those of interrupted uploads.

An upload gives its bytes their name and their row under the same publish lock. So whoever holds that lock and
finds no row may remove the bytes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TypeVar

from sqlalchemy import Connection, select

from prompts_store.blobs import Contents
from prompts_store.database import EVERY_TENANT, Database
from prompts_store.files import data_files
from prompts_store.upkeep.identity import Identity

T = TypeVar("T")

BATCH = 100
"""Removals under one lock, at most."""

HOLD_SECONDS = 0.5
"""After so long no further removal is begun under the same lock: a bucket may take its time for each."""


class FileCollector:
    """One collection of data files.

    Args:
        before: only things that nothing has needed since this time are removed.
    """

    def __init__(
        self, database: Database, contents: Contents, identity: Identity, *, before: datetime
    ) -> None:
        self._database = database
        self._contents = contents
        self._identity = identity
        self._before = before

    def remove(self, unneeded: Iterable[str]) -> tuple[int, int]:
        """Remove those contents that may still be removed. Returns how many, and their bytes."""
        removed = freed = 0
        left = deque(unneeded)
        while left:
            with self._database.write(EVERY_TENANT) as connection:
                self._identity.require(connection)
                batch = list(islice(left, BATCH))
                kept = data_files.needed(connection, batch, deleted_after=self._before)
                for digest in while_locked(batch):
                    left.popleft()
                    if digest in kept:
                        continue
                    require_lock(connection)
                    size = self._contents.remove(digest, before=self._before)
                    removed += size is not None
                    freed += size or 0
        return removed, freed


def while_locked(batch: Iterable[T]) -> Iterator[T]:
    """The items of a batch, until the lock has been held for long enough; one at least."""
    until = time.monotonic() + HOLD_SECONDS
    for item in batch:
        yield item
        if time.monotonic() >= until:
            return


def require_lock(connection: Connection) -> None:
    """Raise an error if the database has ended this session, and so has given the publish lock to others.

    To be called before each removal: without a statement in between, a batch would go on removing what
    somebody publishes meanwhile.
    """
    connection.execute(select(1))
