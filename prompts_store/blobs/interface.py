"""What the store needs from a place for blobs and for the bytes of data files. It is small, so that a bucket
(S3, GCS, Azure) can be one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A stored blob.

    Attributes:
        digest: its name.
        stored_at: when it was last put, by the clock given to `put`; in a bucket, by the bucket's.
    """

    digest: str
    stored_at: datetime


class Place(Protocol):
    """Immutable bytes by name. Every method may be called from several threads and processes at once.

    Each raises StoreError if the place fails.
    """

    def has(self, digest: str) -> bool:
        """Whether there is such a blob; does not read it."""

    def size(self, digest: str) -> int | None:
        """The size of a blob in bytes, without reading it; None if there is no such blob."""

    def identity(self) -> str | None:
        """The id of the database that this place belongs to; None if it was never given one."""

    def identify(self, identity: str, *, now: datetime, instead_of: str | None) -> bool:
        """Give this place an id. When this returns, the id survives a power cut.

        Args:
            instead_of: the id that it has, as far as the caller knows.

        Returns:
            False if it has another id by now, which stays. A bucket decides that in one step; a folder looks
            first and then writes.
        """

    def remove(self, digest: str, *, before: datetime | None = None) -> int | None:
        """Remove a blob, and return its size in bytes. None if there was none, or it was put later than
        `before`."""

    def entries(self) -> Iterator[BlobEntry]:
        """All blobs, in no order. Blobs that appear or disappear meanwhile may be missed."""

    def unfinished(self) -> int:
        """The number of temporary files: puts under way, and those that dead processes left."""

    def sweep(self, before: datetime, *, dry_run: bool = False) -> int:
        """Remove files that were begun before this time and never finished. Returns how many.

        Args:
            dry_run: only count them.
        """


class Blobs(Place, Protocol):
    """The values of prompts, each a few MB at most."""

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        """Store a blob. When this returns, it survives a power cut. It is there whole or not at all.

        A blob of that name is replaced, because it may be damaged. `stored_at` becomes `now`.
        """

    def get(self, digest: str, *, fresh: bool = False) -> bytes | None:
        """The bytes; None if there is no such blob.

        Args:
            fresh: ask the place itself, whatever copies there are nearer.
        """
