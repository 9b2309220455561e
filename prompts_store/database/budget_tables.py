"""The tables of budgets, beside those of `tables`.

    budget_uses 1---n budget_leases: what processes took of it and have not spent yet

A budget is a tenant's, or with `key` one of its keys'. Nothing here is history: that is in `usage_tables`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table

from prompts_store.database.columns import NAME, PUBLIC_ID, Instant
from prompts_store.database.tables import metadata

budget_uses = Table(
    "budget_uses",
    metadata,
    Column("tenant", NAME, primary_key=True),
    # Empty for the tenant's own.
    Column("key", PUBLIC_ID, primary_key=True),
    Column("limit", String(32), primary_key=True),
    # Of a minute: when its bucket will be full again. Of a month: its first moment.
    Column("moment", Instant, nullable=False),
    # Of a month: what was spent or is leased. Of a minute: the limit by which the moment was worked out.
    Column("used", BigInteger, nullable=False),
    Index("ix_budget_uses_moment", "moment"),
)

budget_leases = Table(
    "budget_leases",
    metadata,
    Column("tenant", NAME, primary_key=True),
    Column("key", PUBLIC_ID, primary_key=True),
    Column("limit", String(32), primary_key=True),
    # The process that has it.
    Column("replica", String(16), primary_key=True),
    # The month that it is of; of other limits, the beginning of time.
    Column("window", Instant, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Index("ix_budget_leases_expires_at", "expires_at"),
)
