"""What the store said when it was last asked: good until a change names it, or the feed cannot be read."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

STALE_SECONDS = 30.0
"""How long what was found last is used, while the store cannot be read."""

SEEN_SECONDS = 1.0
"""A change by another process is seen within this time, or nothing is used that it might concern."""


@dataclass(frozen=True, slots=True)
class Asked:
    """When a question was put to the store: what was dropped since makes its answer old."""

    at: float
    drops: int


class Memory(Generic[K, T]):
    """Answers of the store. One is *fresh* while it is known that nothing changed it: for a while after it
    was asked for, and after each reading of the change feed. Then it is a *spare* for `STALE_SECONDS`, for
    when the store does not answer.

    Args:
        clock: monotonic seconds.
        fresh_seconds: 0 asks each time.
        most: answers that are kept; those that were used last.
    """

    def __init__(
        self, clock: Callable[[], float], *, fresh_seconds: float = SEEN_SECONDS, most: int = 4096
    ) -> None:
        self._clock = clock
        self._fresh_seconds = fresh_seconds
        self._most = most
        self._kept: OrderedDict[K, tuple[Asked, T]] = OrderedDict()
        self._read_at = -math.inf
        self._drops = 0
        self._doubted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def asking(self) -> Asked:
        """A question is put now."""
        return Asked(self._clock(), self._drops)

    def keep(self, answers: Mapping[K, T], asked: Asked) -> None:
        """Remember answers, unless something changed meanwhile, which may have made them old already."""
        if asked.drops != self._drops:
            return
        for key, answer in answers.items():
            self._kept[key] = (asked, answer)
            self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def fresh(self, key: K) -> T | None:
        """The answer, if it may be used without asking."""
        found = self._kept.get(key)
        if found is None or found[0].drops < self._doubted or not self._good(found[0], self._fresh_seconds):
            return None
        self._kept.move_to_end(key)
        return found[1]

    def spare(self, key: K) -> T | None:
        """The answer, if it may be used where the store does not answer."""
        found = self._kept.get(key)
        return found[1] if found is not None and self._good(found[0], STALE_SECONDS) else None

    def _good(self, asked: Asked, seconds: float) -> bool:
        return self._clock() < max(asked.at, self._read_at) + seconds

    def drop_where(self, changed: Callable[[K, T], bool]) -> None:
        """Something changed: answers that it concerns are not good any more, nor is one on its way."""
        self._drops += 1
        for key in [key for key, (_, answer) in self._kept.items() if changed(key, answer)]:
            del self._kept[key]

    def drop(self, key: K) -> None:
        """The same for one question."""
        self._drops += 1
        self._kept.pop(key, None)

    def forget(self) -> None:
        """Anything may have changed: no answer from before is good."""
        self._drops += 1
        self._kept.clear()

    def doubt(self) -> None:
        """A change failed, as far as is known: ask anew, and keep the answers as spares."""
        self._drops += 1
        self._doubted = self._drops

    def confirm(self, at: float) -> None:
        """The feed was read, on this clock at that time: what it named was dropped, all else is as it was."""
        self._read_at = max(self._read_at, at)
