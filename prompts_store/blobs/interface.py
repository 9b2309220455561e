"""What the store asks of a place for blobs. Small, so that a bucket (S3, GCS, Azure) can be one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A blob that is there.

    Attributes:
        digest: its name.
        stored_at: when it was last put, by the clock that `put` was given.
    """

    digest: str
    stored_at: datetime


class Blobs(Protocol):
    """Immutable bytes by name. Every method may be called from several threads and processes at once.

    Each raises StoreError where the place fails.
    """

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        """Store a blob; when this returns, it outlives a power cut. Whole or not at all under its name.

        A blob of that name is replaced where its bytes differ (it was damaged), else its `stored_at` becomes
        `now`.
        """

    def get(self, digest: str) -> bytes | None:
        """The bytes, None where there is no such blob."""

    def has(self, digest: str) -> bool:
        """Whether there is such a blob; does not read it."""

    def size(self, digest: str) -> int | None:
        """The bytes of a blob, without reading them; None where there is no such blob."""

    def identity(self) -> str | None:
        """The id of the database that this place belongs to; None where it was never given one."""

    def identify(self, identity: str, *, now: datetime) -> None:
        """Give this place an id, in place of any it has; when this returns, it outlives a power cut."""

    def remove(self, digest: str) -> bool:
        """Remove a blob; False where there was none."""

    def entries(self) -> Iterator[BlobEntry]:
        """All blobs, in no order; those that come and go meanwhile may be missed."""

    def unfinished(self) -> int:
        """How many temporary files there are: puts in flight, and those that a dead process left."""

    def sweep(self, before: datetime, *, dry_run: bool = False) -> int:
        """Remove what was begun before that moment and never finished; answers with how many.

        Args:
            dry_run: only count.
        """
