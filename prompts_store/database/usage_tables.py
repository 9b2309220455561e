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

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("tenant", NAME, primary_key=True),
    # The hour's first moment.
    Column("hour", Instant, primary_key=True),
    Column("key", PUBLIC_ID, primary_key=True),
    Column("task", TASK, primary_key=True),
    Column("outcome", String(16), primary_key=True),
    Column("items", BigInteger, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("work_units", BigInteger, nullable=False),
    CheckConstraint(_OUTCOMES, name="outcome"),
    Index("ix_usage_hours_hour", "hour"),
    Index("ix_usage_hours_task", "tenant", "task", "hour"),
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("tenant", NAME, primary_key=True),
    # The day's first moment.
    Column("day", Instant, primary_key=True),
    Column("key", PUBLIC_ID, primary_key=True),
    Column("task", TASK, primary_key=True),
    Column("outcome", String(16), primary_key=True),
    Column("items", BigInteger, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("work_units", BigInteger, nullable=False),
    CheckConstraint(_OUTCOMES, name="outcome"),
    sqlite_with_rowid=False,  # read in the order of its key, four times as fast
)
"""Only the triggers that `migrations/` makes write here, in the transaction that changes an hour."""
