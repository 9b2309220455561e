"""The change feed: numbered rows that tell every process which of its caches are no longer true.

A change is written in the transaction that makes it, under the publish lock. So whoever gets a number commits
before the next number is given, and a reader that has seen a number has seen all before it. A bare sequence
does not give that: it is counted up outside the transaction, and a later number may commit first.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, literal, select

from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT, scoped
from prompts_store.database.tenant_tables import changes
from prompts_store.errors import InvalidError
from prompts_store.pages import MAX_LIMIT, check_limit
from prompts_store.tenants.records import Change, ChangeKind, Changes
from prompts_store.text import shown

CHANGES_KEPT = timedelta(hours=1)
"""How long a reader may sleep and still go on where it was."""

_DROPPED_AT_ONCE = 1000


class ChangeFeed(StoreBase):
    """What changed, in the order in which it became visible."""

    def last_change(self) -> int:
        """The number of the newest change, 0 before the first: where a reader with empty caches begins."""
        with self._database.read(EVERY_TENANT) as connection:
            return _last(connection)

    def changes_after(self, number: int, limit: int = MAX_LIMIT) -> Changes:
        """What changed after a number, at most `limit` changes, and whether the reader has fallen behind.

        Raises:
            InvalidError: a bad limit, or a number that cannot be one.
        """
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
            raise InvalidError(
                f"{shown(number)} is not the number of a change; send the last one that you have.",
                field="number",
            )
        # Every process asks this four times a second, so it is one statement. Numbers have no holes, and the
        # newest row is never dropped: a reader who has seen all finds its own again.
        query = select(changes).where(changes.c.number >= number).order_by(changes.c.number)
        with self._database.read(EVERY_TENANT) as connection:
            rows = connection.execute(query.limit(check_limit(limit) + 1)).all()
            new = [row for row in rows if row.number > number][:limit]
            behind = new[0].number != number + 1 if new else number > 0 and not rows
            if behind:
                return Changes((), behind=True, last=_last(connection))
        items = tuple(Change(row.number, row.at, row.kind, row.tenant, row.subject) for row in new)
        return Changes(items, behind=False, last=items[-1].number if items else number)

    def drop_changes(self, before: datetime) -> int:
        """Forget the changes older than a moment, but never the newest; answers with how many.

        Only from the oldest on: what is kept has no holes, whatever the writers' clocks said.
        """
        dropped = 0
        while True:
            with self._database.read(EVERY_TENANT) as connection:
                end = _droppable(connection, before)
            if end is None:
                return dropped
            with self._database.write(EVERY_TENANT) as connection:
                dropped += connection.execute(delete(changes).where(changes.c.number < end)).rowcount


def record(
    connection: Connection, kind: ChangeKind, tenant: str, subject: str = "", *, now: datetime
) -> None:
    """Add a change to the feed. The caller holds the publish lock, and commits it with what it tells."""
    row = select(
        func.coalesce(func.max(changes.c.number), 0) + 1,
        literal(now, changes.c.at.type),
        literal(kind, changes.c.kind.type),
        literal(tenant, changes.c.tenant.type),
        literal(subject, changes.c.subject.type),
    )
    # The numbers count everybody's changes.
    with scoped(connection, EVERY_TENANT):
        connection.execute(insert(changes).from_select([column.name for column in changes.c], row))


def _last(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(changes.c.number), 0))).scalar_one())


def _droppable(connection: Connection, before: datetime) -> int | None:
    """The number up to which changes may be dropped at once, itself not; None where none may."""
    first, last = connection.execute(select(func.min(changes.c.number), func.max(changes.c.number))).one()
    if first is None:
        return None
    kept = select(changes.c.number).where(changes.c.at >= before).order_by(changes.c.number).limit(1)
    end = min(connection.execute(kept).scalar() or last, first + _DROPPED_AT_ONCE)
    return int(end) if end > first else None
