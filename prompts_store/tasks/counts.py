"""How many live versions name a blob. Equal content is stored once and counted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, literal, null, select, text, update

from prompts_store.database.columns import Instant
from prompts_store.database.tables import blobs, versions

# One statement whether it is the first or not: two would take longer, and tell what others have.
_RETAIN = text(
    "INSERT INTO blobs (digest, size_bytes, reference_count, unreferenced_at) "
    "VALUES (:digest, :size_bytes, 1, NULL) ON CONFLICT (digest) DO UPDATE "
    "SET reference_count = blobs.reference_count + 1, unreferenced_at = NULL"
)


def retain(connection: Connection, digest: str, size_bytes: int) -> None:
    """One more version names a blob. It may be the first."""
    connection.execute(_RETAIN, {"digest": digest, "size_bytes": size_bytes})


def release(connection: Connection, digest: str, now: datetime) -> None:
    """One version fewer names a blob."""
    _set(connection, blobs.c.digest == digest, blobs.c.reference_count - 1, now)


def release_all(connection: Connection, which: ColumnElement[bool], now: datetime) -> None:
    """Release the blobs of many live versions at once, before they are tombstoned.

    Args:
        which: a condition on `versions`.
    """
    uses = (
        select(func.count())
        .select_from(versions)
        .where(which, versions.c.blob_digest == blobs.c.digest)
        .correlate(blobs)
        .scalar_subquery()
    )
    named = select(versions.c.blob_digest).where(which)
    _set(connection, blobs.c.digest.in_(named), blobs.c.reference_count - uses, now)


def recount(connection: Connection, digest: str, now: datetime) -> None:
    """Set one blob's count to what its versions say; for repairs."""
    uses = (
        select(func.count())
        .select_from(versions)
        .where(versions.c.blob_digest == blobs.c.digest)
        .correlate(blobs)
        .scalar_subquery()
    )
    _set(connection, blobs.c.digest == digest, uses, now)


def _set(connection: Connection, which: ColumnElement[bool], left: ColumnElement[Any], now: datetime) -> None:
    # Both columns in one statement: the table checks that they agree.
    since = case((left == 0, literal(now, Instant())), else_=null())
    connection.execute(update(blobs).where(which).values(reference_count=left, unreferenced_at=since))
