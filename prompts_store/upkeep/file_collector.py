"""Removes the bytes of data files that no live file has any more, and those of interrupted uploads.

An upload gives its bytes their name and their row under the same publish lock. So whoever holds that lock and
finds no row may remove the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from prompts_store.blobs import Contents
from prompts_store.database import EVERY_TENANT, Database
from prompts_store.files import data_files
from prompts_store.upkeep.identity import Identity

BATCH = 100
"""Removals under one lock: a writer waits for at most this many."""


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

    def remove(self, unneeded: Sequence[str]) -> tuple[int, int]:
        """Remove those contents that may still be removed. Returns how many, and their bytes."""
        removed = freed = 0
        for batch in batches(unneeded):
            with self._database.write(EVERY_TENANT) as connection:
                self._identity.require(connection)
                kept = data_files.needed(connection, batch, deleted_after=self._before)
                for digest in batch:
                    size = 0 if digest in kept else self._contents.size(digest) or 0
                    if digest not in kept and self._contents.remove(digest):
                        removed += 1
                        freed += size
        return removed, freed


def batches(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    """The digests in groups of as many as are removed under one lock."""
    return (digests[start : start + BATCH] for start in range(0, len(digests), BATCH))
