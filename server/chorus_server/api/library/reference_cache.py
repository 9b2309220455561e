"""What references meant when the store was last asked. Content is never kept here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from chorus_server.api.library.store_health import STALE_SECONDS

T = TypeVar("T")

MAX_KEPT = 4096

Key = tuple[str, str]
"""The tenant of a reference without one, and the reference."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The moment when the store was asked. If something has changed since, its answer is out of date."""

    at: float
    changes: int


class ReferenceCache(Generic[T]):
    """The store's answers by reference. An answer is *fresh* for a while. After that it is a *spare*, until
    it is `STALE_SECONDS` old, for when the store does not answer.

    Args:
        fresh_seconds: how long an answer is fresh; 0 asks each time.
        clock: gives monotonic seconds.
    """

    def __init__(self, fresh_seconds: float, clock: Callable[[], float]) -> None:
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[Asked, T]] = OrderedDict()
        self._changes = 0

    def asking(self) -> Asked:
        """Record that the store is asked now."""
        return Asked(self._clock(), self._changes)

    def keep(self, answers: Mapping[Key, T], asked: Asked) -> None:
        """Remember answers, unless something changed meanwhile and may have made them out of date."""
        if asked.changes != self._changes:
            return
        for key, answer in answers.items():
            self._kept[key] = (asked, answer)
            self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def fresh(self, key: Key) -> T | None:
        """The answer, if it may be used without asking the store."""
        asked, answer = self._kept.get(key, (None, None))
        if asked is None or asked.changes != self._changes:
            return None
        return answer if self._clock() < asked.at + self._fresh_seconds else None

    def spare(self, key: Key) -> T | None:
        """The answer, if it may be used because the store does not answer."""
        asked, answer = self._kept.get(key, (None, None))
        return answer if asked is not None and self._clock() < asked.at + STALE_SECONDS else None

    def forget(self) -> None:
        """This process changed something: drop every answer."""
        self._changes += 1
        self._kept.clear()

    def doubt(self) -> None:
        """A change seems to have failed: ask the store again, but keep the answers as spares."""
        self._changes += 1
