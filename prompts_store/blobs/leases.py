"""Read leases: what a request uses stays until it is answered, even if it is deleted meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Leases:
    """Which digests this process is reading. The grace period protects those that other processes read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()
        self._leaving: set[str] = set()

    @contextmanager
    def hold(self, digest: str) -> Iterator[bool]:
        """Hold a digest without waiting; there may be several holders. False if it is being removed, so this
        came too late."""
        with self._lock:
            self._readers[digest] += 1
            in_time = digest not in self._leaving
        try:
            yield in_time
        finally:
            with self._lock:
                self._readers[digest] -= 1
                if not self._readers[digest]:
                    del self._readers[digest]

    @contextmanager
    def leaving(self, digest: str) -> Iterator[bool]:
        """A block that removes a digest; callers of `hold` meanwhile learn that. False if somebody holds it
        already, so it must stay. No lock is held meanwhile, so a slow disk delays no other reader."""
        with self._lock:
            free = digest not in self._readers
            if free:
                self._leaving.add(digest)
        try:
            yield free
        finally:
            if free:
                with self._lock:
                    self._leaving.discard(digest)

    def held(self) -> int:
        """The number of digests held."""
        with self._lock:
            return len(self._readers)
