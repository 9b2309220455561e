"""Whose turn it is to look after the store: of all processes of a database one at a time, once an interval.

A moment in the database says when upkeep is due. Whoever finds that it has come puts it off, under the
publish lock, and then has the turn; at its end it is put off again. So one that dies holds nobody up for
longer than its turn was to last. Upkeep is right without this, too: two at once would only list the same
blobs twice.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select, update

from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tables import store_identity


class UpkeepTurns(StoreBase):
    """Turns to purge and collect. Whoever does so without one, as operators do, is not refused."""

    def claim_upkeep(self, seconds: float) -> float:
        """Take the turn, for so many seconds.

        Returns:
            0 if this process has it now; else the seconds until upkeep is due.
        """
        left = self._until_due()
        if left:
            return left
        with self._database.write(EVERY_TENANT) as connection:
            now = self._clock()
            due = store_identity.c.upkeep_due_at
            free = due.is_(None) | (due <= now)
            until = now + timedelta(seconds=seconds)
            taken = connection.execute(
                update(store_identity).where(free).values(upkeep_due_at=until)
            ).rowcount
        return 0.0 if taken else self._until_due()

    def end_upkeep(self, seconds: float) -> None:
        """Give the turn back: upkeep is due in so many seconds, for whoever asks first."""
        with self._database.write(EVERY_TENANT) as connection:
            due = self._clock() + timedelta(seconds=seconds)
            connection.execute(update(store_identity).values(upkeep_due_at=due))

    def _until_due(self) -> float:
        with self._database.read(EVERY_TENANT) as connection:
            due = connection.execute(select(store_identity.c.upkeep_due_at)).scalar_one_or_none()
        return 0.0 if due is None else max(0.0, (due - self._clock()).total_seconds())
