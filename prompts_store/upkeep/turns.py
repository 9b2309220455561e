"""Whose turn it is to look after the store: of all processes of a database one at a time, once an interval.

A moment in the database says when upkeep is due. Whoever finds that it has come puts it off, under the
publish lock, and then has the turn; at its end it is put off again, unless another one has the turn by then.
So one that dies holds nobody up for longer than its turn was to last. A moment that is further away than
anybody's own interval explains comes from a clock that was wrong, or from a longer interval: it counts as
come. Upkeep is right without this, too: two at once would only list the same blobs twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select, update

from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import store_identity

_FARTHEST = 2
"""Intervals. With one, clocks that differ by a second would let every process collect each time."""


class UpkeepTurns(StoreBase):
    """Turns to purge and collect. Whoever does so without one, as operators do, is not refused."""

    def claim_upkeep(self, seconds: float) -> tuple[float, datetime | None]:
        """Take the turn, for so many seconds: the caller's interval.

        Returns:
            0 and the turn, for `end_upkeep`, if the caller has it now; else the seconds until upkeep is due,
            at most two intervals, and None.
        """
        left = self._until_due(seconds)
        if left:
            return left, None
        with self._database.write(EVERY_TENANT) as connection:
            now = self._clock()
            due, until = store_identity.c.upkeep_due_at, now + timedelta(seconds=seconds)
            wrong = due > now + timedelta(seconds=_FARTHEST * seconds)
            taken = connection.execute(
                update(store_identity).where(due.is_(None) | (due <= now) | wrong).values(upkeep_due_at=until)
            ).rowcount
        return (0.0, until) if taken else (self._until_due(seconds), None)

    def end_upkeep(self, turn: datetime | None, seconds: float) -> None:
        """Give the turn back: upkeep is due in so many seconds, for whoever asks first. Nothing changes if
        the turn lasted so long that another process has its own now."""
        with self._database.write(EVERY_TENANT) as connection:
            due = self._clock() + timedelta(seconds=seconds)
            mine = store_identity.c.upkeep_due_at == turn
            connection.execute(update(store_identity).where(mine).values(upkeep_due_at=due))

    def upkeep_due_at(self) -> datetime | None:
        """When upkeep is due, in whichever process asks first then; None before the first turn."""
        with self._database.read(EVERY_TENANT) as connection:
            return connection.execute(select(store_identity.c.upkeep_due_at)).scalar_one_or_none()

    def _until_due(self, interval: float) -> float:
        due = self.upkeep_due_at()
        left = 0.0 if due is None else max(0.0, (due - self._clock()).total_seconds())
        return left if left <= _FARTHEST * interval else 0.0
