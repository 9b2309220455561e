"""Rows that are kept until a moment of their own."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Table, delete, select

from prompts_store.database import EVERY_TENANT, Database

_AT_ONCE = 1000


def drop_expired(database: Database, table: Table, now: datetime) -> int:
    """Drop the rows whose time is over, some at once; answers with how many.

    Args:
        table: with a `number` and an `expires_at`.
    """
    expired = select(table.c.number).where(table.c.expires_at <= now).limit(_AT_ONCE)
    dropped = 0
    while True:
        with database.read(EVERY_TENANT) as connection:
            found = list(connection.execute(expired).scalars())
        if not found:
            return dropped
        with database.write(EVERY_TENANT) as connection:
            dropped += connection.execute(delete(table).where(table.c.number.in_(found))).rowcount
