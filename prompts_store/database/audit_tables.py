"""The tables of the audit log: a chain of rows for each tenant, and where each chain ends.

`migrations/` makes triggers with them: no row is changed, none goes that the head does not call dropped, and
no head goes back.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, String, Table, Text

from prompts_store.database.columns import DIGEST, NAME, Instant
from prompts_store.database.tables import metadata

audit = Table(
    "audit",
    metadata,
    # Empty for what concerns the whole store.
    Column("tenant", NAME, primary_key=True),
    # 1, 2, ... without holes in each tenant.
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", JSON(none_as_null=True), nullable=True),
    Column("after", JSON(none_as_null=True), nullable=True),
    Column("previous", DIGEST, nullable=False),
    Column("hash", DIGEST, nullable=False),
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("tenant", NAME, primary_key=True),
    # Of the newest row. Locked while a row is appended.
    Column("sequence", BigInteger, nullable=False),
    Column("hash", DIGEST, nullable=False),
    # Of the newest row that retention has dropped: the oldest row that is kept names this hash.
    Column("dropped", BigInteger, nullable=False),
    Column("dropped_hash", DIGEST, nullable=False),
    CheckConstraint("0 <= dropped AND dropped <= sequence", name="dropped"),
)
