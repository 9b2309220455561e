"""Blobs in memory, for tests and for a server that keeps nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

from prompts_store.blobs.interface import BlobEntry


class MemoryBlobs:
    """A `Blobs` that lives as long as the object. It keeps the promises of `Blobs`, except after a power
    cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[str, tuple[bytes, datetime]] = {}
        self._identity: str | None = None

    def put(self, digest: str, content: bytes, *, now: datetime) -> None:
        """See `Blobs.put`."""
        with self._lock:
            self._blobs[digest] = (content, now)

    def get(self, digest: str, *, fresh: bool = False) -> bytes | None:
        """See `Blobs.get`."""
        with self._lock:
            found = self._blobs.get(digest)
        return found[0] if found else None

    def has(self, digest: str) -> bool:
        """See `Place.has`."""
        with self._lock:
            return digest in self._blobs

    def size(self, digest: str) -> int | None:
        """See `Place.size`."""
        found = self.get(digest)
        return None if found is None else len(found)

    def identity(self) -> str | None:
        """See `Place.identity`."""
        return self._identity

    def identify(self, identity: str, *, now: datetime, instead_of: str | None) -> bool:
        """See `Place.identify`."""
        with self._lock:
            if self._identity not in (instead_of, identity):
                return False
            self._identity = identity
        return True

    def remove(self, digest: str, *, before: datetime | None = None) -> int | None:
        """See `Place.remove`."""
        with self._lock:
            found = self._blobs.get(digest)
            if found is None or (before is not None and found[1] > before):
                return None
            del self._blobs[digest]
        return len(found[0])

    def entries(self) -> Iterator[BlobEntry]:
        """See `Place.entries`."""
        with self._lock:
            found = [BlobEntry(digest, stored_at) for digest, (_, stored_at) in self._blobs.items()]
        return iter(found)

    def unfinished(self) -> int:
        """Always 0, because a put is one assignment."""
        return 0

    def sweep(self, before: datetime, *, dry_run: bool = False) -> int:
        """Always 0."""
        return 0
