"""Read leases: what a request is using stays until it is answered, also when it is deleted meanwhile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Leases:
    """Which digests are being read in this process; the grace period covers the other processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()
        self._leaving: set[str] = set()

    @contextmanager
    def hold(self, digest: str) -> Iterator[bool]:
        """Hold a digest, at once; several holders may. False where it is being removed: it came too late."""
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

    def unless_held(self, digest: str, remove: Callable[[], bool]) -> bool | None:
        """Run `remove` while whoever begins to hold the digest is told that it leaves; None when somebody
        holds it already. No lock is held meanwhile, so that a slow disk holds up no other reader."""
        with self._lock:
            if digest in self._readers:
                return None
            self._leaving.add(digest)
        try:
            return remove()
        finally:
            with self._lock:
                self._leaving.discard(digest)

    def held(self) -> int:
        """How many digests are held."""
        with self._lock:
            return len(self._readers)
