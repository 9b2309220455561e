"""The collector removes blobs that nothing names any more.

An upload stores its blob first and names it afterwards, so a blob without a name may be about to get one.
Three things protect it: the grace period; the publish lock, under which the collector looks again before each
removal; and the upload itself, which checks under the same lock that its blob is still there, and stores it
again if not. The last two work whatever the grace period and the clocks are; the grace period makes them
rarely necessary.

A database that does not belong to the folder would let the collector remove everything: see `identity`. One
that has lost rows would let it remove much. So a collection of most of what is there is refused until an
operator has looked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Literal

from sqlalchemy import Connection, delete, literal, select, tuple_

from prompts_store.audit import chain
from prompts_store.audit.records import OF_THE_STORE
from prompts_store.blobs import Blobs, Contents
from prompts_store.blobs.leases import Leases
from prompts_store.database import EVERY_TENANT, Database
from prompts_store.database.tables import blobs as blob_table
from prompts_store.errors import ConflictError
from prompts_store.upkeep.file_collector import BATCH, FileCollector, require_lock, while_locked
from prompts_store.upkeep.holdings import Holding, blob_holdings, file_holdings
from prompts_store.upkeep.identity import Identity

MASS_REMOVAL = 20
"""A collection of more than this many, and of more than half of what is there, is refused unless allowed."""


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What a collection did.

    Attributes:
        blobs: number removed because no live version names them.
        freed_bytes: size of those, of `orphans` and of `files`.
        orphans: number removed because nothing ever named them: interrupted uploads.
        temporary_files: number removed that dead processes had left.
        held: number left alone because somebody reads them.
        files: contents of data files that were removed because no live file has them or their upload was
            interrupted.
    """

    blobs: int = 0
    freed_bytes: int = 0
    orphans: int = 0
    temporary_files: int = 0
    held: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True)
class Removal:
    """Something that a collection would remove.

    Attributes:
        kind: `blob` of deleted versions, `orphan` that nothing ever named, or the content of a `file`.
    """

    kind: Literal["blob", "orphan", "file"]
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """What a collection would do now.

    Attributes:
        temporary_files: number of temporary files of dead processes that it would also remove.
        refusal: why it would remove nothing at all; None if it would go ahead.
    """

    removals: tuple[Removal, ...]
    temporary_files: int
    refusal: str | None


class Collector:
    """One collection.

    Args:
        before: only things that nothing has needed since this time are removed.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        leases: Leases,
        contents: Contents,
        identity: Identity,
        *,
        before: datetime,
        now: datetime,
    ) -> None:
        self._now = now
        self._database = database
        self._blobs = blobs
        self._leases = leases
        self._contents = contents
        self._identity = identity
        self._before = before
        self._files = FileCollector(database, contents, identity, before=before)
        self._held = 0

    def plan(self, *, allow_mass_removal: bool) -> CollectPlan:
        """What `run` would do."""
        of_blobs, of_files = self._counts()
        removals = [
            Removal("blob" if one.known else "orphan", one.digest, self._blobs.size(one.digest) or 0)
            for one in of_blobs
        ]
        removals += [Removal("file", one.digest, self._contents.size(one.digest) or 0) for one in of_files]
        temporary = self._blobs.sweep(self._before, dry_run=True)
        temporary += self._contents.sweep(self._before, dry_run=True)
        with self._database.read(EVERY_TENANT) as connection:
            refusal = self._identity.refusal(connection)
        if not allow_mass_removal:
            refusal = refusal or of_blobs.refusal or of_files.refusal
        return CollectPlan(tuple(removals), temporary, refusal)

    def run(self, *, allow_mass_removal: bool) -> CollectReport:
        """Collect everything that may go.

        Raises:
            ConflictError: `other_store`, `mass_removal`; nothing was removed.
        """
        with self._database.read(EVERY_TENANT) as connection:
            self._identity.require(connection)
        of_blobs, of_files = self._counts()
        unnamed = [one.digest for one in of_blobs if not one.known]
        unneeded = [one.digest for one in of_files]
        refusal = of_blobs.refusal or of_files.refusal
        if refusal and not allow_mass_removal:
            raise ConflictError(refusal, code="mass_removal")
        removed, freed = self._collect_unreferenced()
        orphans, orphan_bytes = self._collect_orphans(unnamed)
        files, file_bytes = self._files.remove(unneeded)
        freed += orphan_bytes + file_bytes
        with self._database.write(EVERY_TENANT) as connection:
            self._identity.require(connection)
            temporary = self._blobs.sweep(self._before) + self._contents.sweep(self._before)
            report = CollectReport(removed, freed, orphans, temporary, self._held, files)
            if removed or orphans or temporary or files:
                chain.append(connection, "store.collect", OF_THE_STORE, now=self._now, after=asdict(report))
        return report

    def _counts(self) -> tuple[_Counted, _Counted]:
        blobs = _Counted("blobs", blob_holdings(self._database, self._blobs), self._before)
        return blobs, _Counted("data files", file_holdings(self._database, self._contents), self._before)

    def _collect_unreferenced(self) -> tuple[int, int]:
        removed = freed = 0
        last: tuple[datetime, str] | None = None
        while True:
            with self._database.write(EVERY_TENANT) as connection:
                self._identity.require(connection)
                rows = self._candidates(connection, after=last)
                for since, digest in while_locked(rows):
                    last = since, digest
                    with self._leases.leaving(digest) as free:
                        self._held += not free
                        if not free:
                            continue
                        require_lock(connection)
                        size = self._blobs.remove(digest)
                    # The blob may be missing: a collection that died before its commit has already removed
                    # it.
                    connection.execute(delete(blob_table).where(blob_table.c.digest == digest))
                    removed += size is not None
                    freed += size or 0
            if not rows or (len(rows) < BATCH and last == rows[-1]):
                return removed, freed

    def _candidates(
        self, connection: Connection, *, after: tuple[datetime, str] | None
    ) -> list[tuple[datetime, str]]:
        """The next blobs that nothing names, in the order of their index, so that writers do not wait while a
        million others are read."""
        since = blob_table.c.unreferenced_at
        key = tuple_(since, blob_table.c.digest)
        query = select(since, blob_table.c.digest).where(since <= self._before)
        if after is not None:
            moment, digest = (
                literal(value, column.type)
                for value, column in zip(after, (since, blob_table.c.digest), strict=True)
            )
            query = query.where(key > tuple_(moment, digest))
        rows = connection.execute(query.order_by(since, blob_table.c.digest).limit(BATCH))
        return [(row.unreferenced_at, row.digest) for row in rows]

    def _collect_orphans(self, unnamed: Sequence[str]) -> tuple[int, int]:
        removed = freed = 0
        left = deque(unnamed)
        while left:
            with self._database.write(EVERY_TENANT) as connection:
                self._identity.require(connection)
                batch = list(islice(left, BATCH))
                named = _named(connection, batch)
                for digest in while_locked(batch):
                    left.popleft()
                    if digest in named:
                        continue
                    with self._leases.leaving(digest) as free:
                        self._held += not free
                        if not free:
                            continue
                        require_lock(connection)
                        size = self._blobs.remove(digest, before=self._before)
                    removed += size is not None
                    freed += size or 0
        return removed, freed


class _Counted:
    """The removable part of a folder, counted while the folder is walked."""

    def __init__(self, what: str, holdings: Iterable[Holding], before: datetime) -> None:
        self._what = what
        self._holdings = holdings
        self._before = before
        self._there = self._going = 0

    def __iter__(self) -> Iterator[Holding]:
        for one in self._holdings:
            self._there += 1
            if one.free_since is not None and one.free_since <= self._before:
                self._going += 1
                yield one

    @property
    def refusal(self) -> str | None:
        """Why so many are not removed, in words. Known at the end of the walk."""
        if self._going <= MASS_REMOVAL or 2 * self._going <= self._there:
            return None
        return (
            f"The collection would remove {self._going} of {self._there} {self._what}, more than half, so "
            f"nothing is removed. Look at them with `chorus store collect --dry-run`; if they may go, run "
            f"`chorus store collect --allow-mass-removal`."
        )


def _named(connection: Connection, digests: Sequence[str]) -> set[str]:
    """Those of the digests that have a row, whatever its count."""
    query = select(blob_table.c.digest).where(blob_table.c.digest.in_(digests))
    return set(connection.execute(query).scalars())
