"""What references meant when the store was last asked; content is never kept here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.api.library.store_health import STALE_SECONDS

T = TypeVar("T")

MAX_KEPT = 4096

Key = tuple[str, str]
"""The tenant that a bare name means, and the reference."""


@dataclass(frozen=True, slots=True)
class Asked:
    """When a question was put to the store: what changed since makes its answer old."""

    at: float
    changes: int


class ReferenceCache(Generic[T]):
    """Answers of the store by reference. One is *fresh* for a while, then a *spare* for `STALE_SECONDS` in
    all, for when the store does not answer.

    Args:
        fresh_seconds: 0 asks each time.
        clock: monotonic seconds.
    """

    def __init__(self, fresh_seconds: float, clock: Callable[[], float]) -> None:
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._kept: OrderedDict[Key, tuple[Asked, T]] = OrderedDict()
        self._changes = 0

    def asking(self) -> Asked:
        """A question is put now."""
        return Asked(self._clock(), self._changes)

    def keep(self, answers: Mapping[Key, T], asked: Asked) -> None:
        """Remember answers, unless something changed meanwhile, which may have made them old already."""
        if asked.changes != self._changes:
            return
        for key, answer in answers.items():
            self._kept[key] = (asked, answer)
            self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def fresh(self, key: Key) -> T | None:
        """The answer, if it may be used without asking."""
        asked, answer = self._kept.get(key, (None, None))
        if asked is None or asked.changes != self._changes:
            return None
        return answer if self._clock() < asked.at + self._fresh_seconds else None

    def spare(self, key: Key) -> T | None:
        """The answer, if it may be used where the store does not answer."""
        asked, answer = self._kept.get(key, (None, None))
        return answer if asked is not None and self._clock() < asked.at + STALE_SECONDS else None

    def forget(self) -> None:
        """This process changed something: no answer from before is good."""
        self._changes += 1
        self._kept.clear()

    def doubt(self) -> None:
        """A change failed, as far as is known: ask anew, and keep the answers as spares."""
        self._changes += 1
