"""What a folder contains, each item together with what the database knows about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Select, func, select

from prompts_store.blobs import BlobEntry, Blobs, Contents
from prompts_store.database import EVERY_TENANT, Database
from prompts_store.database.job_tables import files
from prompts_store.database.tables import blobs as blob_table

# Rows in one query.
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Holding:
    """A blob, or a data file's content, in its folder.

    Attributes:
        known: whether the database has a row for it, even of something deleted.
        needed: whether a live version or file names it.
        free_since: since when nothing names it; if nothing ever did, when it was stored. None while it is
            needed.
    """

    digest: str
    known: bool
    needed: bool
    free_since: datetime | None


def blob_holdings(database: Database, blobs: Blobs) -> Iterator[Holding]:
    """All blobs of prompts, in no order. Each page of the database is a separate snapshot."""

    def holding(entry: BlobEntry, row: Any | None) -> Holding:
        if row is None:
            return Holding(entry.digest, False, False, entry.stored_at)
        return Holding(entry.digest, True, row.unreferenced_at is None, row.unreferenced_at)

    query = select(blob_table.c.digest, blob_table.c.unreferenced_at)
    return _joined(
        database, blobs.entries(), lambda some: query.where(blob_table.c.digest.in_(some)), holding
    )


def file_holdings(database: Database, contents: Contents) -> Iterator[Holding]:
    """All contents of data files, in no order."""

    def holding(entry: BlobEntry, row: Any | None) -> Holding:
        if row is None:
            return Holding(entry.digest, False, False, entry.stored_at)
        if row.live:
            return Holding(entry.digest, True, True, None)
        # It was stored after the last deletion, so somebody is uploading the same bytes again.
        return Holding(entry.digest, True, False, max(row.deleted_at, entry.stored_at))

    query = select(
        files.c.sha256.label("digest"),
        (func.count() - func.count(files.c.deleted_at)).label("live"),
        func.max(files.c.deleted_at).label("deleted_at"),
    ).group_by(files.c.sha256)
    return _joined(database, contents.entries(), lambda some: query.where(files.c.sha256.in_(some)), holding)


def needed_blobs(connection: Connection) -> int:
    """The number of blobs that live versions name."""
    return connection.execute(
        select(func.count()).select_from(blob_table).where(blob_table.c.unreferenced_at.is_(None))
    ).scalar_one()


def needed_files(connection: Connection) -> int:
    """The number of different contents that live data files have."""
    query = select(func.count(files.c.sha256.distinct())).where(files.c.deleted_at.is_(None))
    return connection.execute(query).scalar_one()


def _joined(
    database: Database,
    entries: Iterator[BlobEntry],
    rows_of: Callable[[list[str]], Select[Any]],
    holding: Callable[[BlobEntry, Any | None], Holding],
) -> Iterator[Holding]:
    while page := list(islice(entries, _PAGE)):
        with database.read(EVERY_TENANT) as connection:
            found = connection.execute(rows_of([entry.digest for entry in page]))
            rows = {row.digest: row for row in found}
        for entry in page:
            yield holding(entry, rows.get(entry.digest))
