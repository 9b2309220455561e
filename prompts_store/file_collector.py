"""Frees the bytes of data files that no live file has any more, and those of uploads that died.

An upload gives its bytes their name and their row under one publish lock, so whoever holds that lock and
finds no row may remove them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from prompts_store import data_files
from prompts_store.blobs import LocalContents
from prompts_store.database import Database

# Removals a lock: a writer waits for at most so many.
_BATCH = 100


class FileCollector:
    """One collection of data files.

    Args:
        before: only what nothing has needed since before that moment goes.
    """

    def __init__(self, database: Database, contents: LocalContents, *, before: datetime) -> None:
        self._database = database
        self._contents = contents
        self._before = before

    def run(self) -> tuple[int, int]:
        """Collect what may go; answers with how many and their bytes."""
        removed = freed = 0
        old = (entry.digest for entry in self._contents.entries() if entry.stored_at <= self._before)
        for batch in _batches(old):
            with self._database.read() as connection:
                kept = data_files.needed(connection, batch, deleted_after=self._before)
            suspects = [digest for digest in batch if digest not in kept]
            if not suspects:
                continue
            with self._database.write() as connection:
                kept = data_files.needed(connection, suspects, deleted_after=self._before)
                for digest in suspects:
                    size = 0 if digest in kept else self._contents.size(digest) or 0
                    if digest not in kept and self._contents.remove(digest):
                        removed += 1
                        freed += size
        return removed, freed

    def sweep(self) -> int:
        """Remove the temporary files of uploads that died; answers with how many."""
        return self._contents.sweep(self._before)


def _batches(digests: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(digests, _BATCH)):
        yield batch
