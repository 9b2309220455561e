"""The collector: frees blobs that nothing names any more.

An upload stores its blob first and names it afterwards, so a blob without a name may be about to get one.
Three things keep it: the grace period; the publish lock, under which the collector looks again before each
removal; and the upload itself, which looks under the same lock whether its blob is still there, and stores
it again if not. The last two hold whatever the grace period and the clocks are; the grace period saves them
the trouble.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, delete, literal, select, tuple_

from prompts_store.blobs import Blobs, LocalContents
from prompts_store.database import Database
from prompts_store.file_collector import FileCollector
from prompts_store.leases import Leases
from prompts_store.tables import blobs as blob_table

# Removals a lock: a writer waits for at most so many.
_BATCH = 100


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection did.

    Attributes:
        blobs: removed because no live version names them.
        freed_bytes: of those, and of `files`.
        orphans: removed because nothing ever named them: uploads that died.
        temporary_files: removed, left by writers that died.
        held: left alone because somebody reads them.
        files: contents of data files, removed because no live file has them, or because their upload died.
    """

    blobs: int = 0
    freed_bytes: int = 0
    orphans: int = 0
    temporary_files: int = 0
    held: int = 0
    files: int = 0


class Collector:
    """One collection.

    Args:
        before: only what nothing has needed since before that moment goes.
    """

    def __init__(
        self, database: Database, blobs: Blobs, leases: Leases, contents: LocalContents, *, before: datetime
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._leases = leases
        self._before = before
        self._files = FileCollector(database, contents, before=before)
        self._held = 0

    def run(self) -> CollectReport:
        """Collect everything that may go."""
        removed, freed = self._collect_unreferenced()
        orphans = self._collect_orphans()
        with self._database.write():
            temporary = self._blobs.sweep(self._before)
        files, file_bytes = self._files.run()
        temporary += self._files.sweep()
        return CollectReport(removed, freed + file_bytes, orphans, temporary, self._held, files)

    def _collect_unreferenced(self) -> tuple[int, int]:
        removed = freed = 0
        last: tuple[datetime, str] | None = None
        while True:
            with self._database.write() as connection:
                rows = self._candidates(connection, after=last)
                for _, digest, size in rows:
                    was_there = self._remove(digest)
                    if was_there is None:
                        continue
                    # Without one too: a collection that died before its commit has taken the blob already.
                    connection.execute(delete(blob_table).where(blob_table.c.digest == digest))
                    removed += was_there
                    freed += size * was_there
            if len(rows) < _BATCH:
                return removed, freed
            last = rows[-1][:2]

    def _candidates(
        self, connection: Connection, *, after: tuple[datetime, str] | None
    ) -> list[tuple[datetime, str, int]]:
        """The next blobs that nothing names, in the order of their index: the million others are not looked
        at while writers wait."""
        since = blob_table.c.unreferenced_at
        key = tuple_(since, blob_table.c.digest)
        query = select(since, blob_table.c.digest, blob_table.c.size_bytes).where(since <= self._before)
        if after is not None:
            moment, digest = (
                literal(value, column.type)
                for value, column in zip(after, (since, blob_table.c.digest), strict=True)
            )
            query = query.where(key > tuple_(moment, digest))
        rows = connection.execute(query.order_by(since, blob_table.c.digest).limit(_BATCH))
        return [(row.unreferenced_at, row.digest, row.size_bytes) for row in rows]

    def _collect_orphans(self) -> int:
        old = (entry.digest for entry in self._blobs.entries() if entry.stored_at <= self._before)
        removed = 0
        for batch in _batches(old):
            with self._database.read() as connection:
                suspects = [digest for digest in batch if digest not in _named(connection, batch)]
            if not suspects:
                continue
            with self._database.write() as connection:
                named = _named(connection, suspects)
                removed += sum(bool(self._remove(digest)) for digest in suspects if digest not in named)
        return removed

    def _remove(self, digest: str) -> bool | None:
        removed = self._leases.unless_held(digest, lambda: self._blobs.remove(digest))
        self._held += removed is None
        return removed


def _named(connection: Connection, digests: Sequence[str]) -> set[str]:
    """Those of the digests that have a row, whatever its count."""
    query = select(blob_table.c.digest).where(blob_table.c.digest.in_(digests))
    return set(connection.execute(query).scalars())


def _batches(digests: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(digests, _BATCH)):
        yield batch
