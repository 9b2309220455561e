"""The tables of what was used, beside those of `tables`.

    usage --- added up in the same transaction ---> usage_hours --- by triggers ---> usage_days

Rows are only added, and leave by whole months. They name tenants, keys and tasks by what these were called
then, and refer to nothing.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, String, Table

from prompts_store.database.columns import DIGEST, KEY, NAME, PUBLIC_ID, TASK, Instant
from prompts_store.database.tables import metadata

_OUTCOMES = "outcome IN ('answered', 'failed', 'cancelled')"

usage = Table(
    "usage",
    metadata,
    # Who wrote the row, and which of its rows it is: a row that is written again is known by them.
    Column("replica", String(16), primary_key=True),
    Column("sequence", KEY, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("tenant", NAME, nullable=False),
    # Empty for a caller without a key of the store; the next two for the base model without a prompt.
    Column("key", PUBLIC_ID, nullable=False),
    Column("task", TASK, nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("work_units", BigInteger, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("item", Integer, nullable=False),
    CheckConstraint(_OUTCOMES, name="outcome"),
    Index("ix_usage_at", "tenant", "at"),
)


def _sums(name: str, span: str, *more: Index, with_rowid: bool = True) -> Table:
    """Of each span of that name, what was used in it, by who asked, what and how it ended."""
    return Table(
        name,
        metadata,
        Column("tenant", NAME, primary_key=True),
        # Its first moment.
        Column(span, Instant, primary_key=True),
        Column("key", PUBLIC_ID, primary_key=True),
        Column("task", TASK, primary_key=True),
        Column("outcome", String(16), primary_key=True),
        Column("items", BigInteger, nullable=False),
        Column("tokens_in", BigInteger, nullable=False),
        Column("tokens_out", BigInteger, nullable=False),
        Column("work_units", BigInteger, nullable=False),
        CheckConstraint(_OUTCOMES, name="outcome"),
        *more,
        sqlite_with_rowid=with_rowid,
    )


usage_hours = _sums(
    "usage_hours",
    "hour",
    Index("ix_usage_hours_hour", "hour"),
    Index("ix_usage_hours_task", "tenant", "task", "hour"),
)

# Without a rowid it is read in the order of its key, four times as fast.
usage_days = _sums("usage_days", "day", with_rowid=False)
"""Only the triggers that `migrations/` makes write here, in the transaction that changes an hour."""
