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

    @contextmanager
    def hold(self, digest: str) -> Iterator[None]:
        """Hold a digest; several holders may."""
        with self._lock:
            self._readers[digest] += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers[digest] -= 1
                if not self._readers[digest]:
                    del self._readers[digest]

    def unless_held(self, digest: str, remove: Callable[[], bool]) -> bool | None:
        """Run `remove` while nobody can begin to hold the digest; None when somebody holds it already."""
        with self._lock:
            return None if self._readers[digest] else remove()

    def held(self) -> int:
        """How many digests are held."""
        with self._lock:
            return len(self._readers)
