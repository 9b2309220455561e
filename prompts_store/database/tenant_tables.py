"""The tables of tenants, their keys and the change feed, beside those of `tables`.

    tenants 1---n keys          changes: what other processes must look at again
                                grants: what a tenant lets others use
    stored_use: how much of what is limited each tenant keeps
    creations: what was made of requests that may come again
    sessions: who is signed in to the console

Rows of tenants are never removed, so no name ever means two things; those of keys go with the purge of their
tenant. Rows of other tables name their tenant by its name and need no row here: a store is also used without
tenants.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from prompts_store.database.columns import DIGEST, KEY, NAME, PUBLIC_ID, Instant
from prompts_store.database.tables import metadata

_UNPURGED = text("purge_after IS NOT NULL")

tenants = Table(
    "tenants",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("weight", Float, nullable=False),
    Column("status", String(16), nullable=False),
    Column("limits", JSON, nullable=False),
    # How long to keep rows of usage and of the audit log; NULL where the tenant has no wish of its own.
    Column("usage_days", Integer, nullable=True),
    Column("audit_days", Integer, nullable=True),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("suspended_at", Instant, nullable=True),
    Column("deleted_at", Instant, nullable=True),
    # When what a deleted tenant had may go; emptied when it has gone.
    Column("purge_after", Instant, nullable=True),
    CheckConstraint("status IN ('active', 'suspended', 'deleted')", name="status"),
    CheckConstraint("(status = 'suspended') = (suspended_at IS NOT NULL)", name="suspended"),
    CheckConstraint("(status = 'deleted') = (deleted_at IS NOT NULL)", name="deleted"),
    CheckConstraint("purge_after IS NULL OR deleted_at IS NOT NULL", name="purge"),
    Index("ix_tenants_unpurged", "purge_after", sqlite_where=_UNPURGED, postgresql_where=_UNPURGED),
)

keys = Table(
    "keys",
    metadata,
    Column("number", KEY, primary_key=True),
    Column("id", PUBLIC_ID, nullable=False, unique=True),
    Column("tenant", ForeignKey(tenants.c.name), nullable=False),
    Column("public", String(8), nullable=False, unique=True),
    # Of the whole key; the key itself is nowhere.
    Column("digest", DIGEST, nullable=False),
    Column("name", NAME, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("tasks", JSON(none_as_null=True), nullable=True),
    Column("limits", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Instant, nullable=True),
    Column("revoked_at", Instant, nullable=True),
    Column("last_used_at", Instant, nullable=True),
    Index("ix_keys_tenant", "tenant", "number"),
    Index("ix_keys_name", "tenant", "name"),
)

stored_use = Table(
    "stored_use",
    metadata,
    # Sums over the tenant's rows, kept as these change: to add up 100,000 versions takes too long to publish.
    Column("tenant", NAME, primary_key=True),
    Column("prompts", BigInteger, nullable=False),
    Column("prompt_bytes", BigInteger, nullable=False),
    Column("file_bytes", BigInteger, nullable=False),
)

creations = Table(
    "creations",
    metadata,
    Column("number", KEY, primary_key=True),
    Column("tenant", NAME, nullable=False),
    # SHA-256 of what tells two requests apart: the sender's key, or the sender and all that it says.
    Column("name", DIGEST, nullable=False),
    # SHA-256 of all that it says.
    Column("said", DIGEST, nullable=False),
    # What became of it: an id, or `task@3`.
    Column("made", Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
    UniqueConstraint("tenant", "name"),
    Index("ix_creations_expires_at", "expires_at"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("number", KEY, primary_key=True),
    Column("tenant", NAME, nullable=False),
    # SHA-256 of what the browser has; that itself is nowhere.
    Column("digest", DIGEST, nullable=False, unique=True),
    # The public part of a stored key, or what a key from a file is known by.
    Column("public", String(8), nullable=True),
    Column("seal", DIGEST, nullable=True),
    Column("expires_at", Instant, nullable=False),
    CheckConstraint("(public IS NULL) <> (seal IS NULL)", name="whose"),
    Index("ix_sessions_tenant", "tenant", "public"),
    Index("ix_sessions_expires_at", "expires_at"),
)

changes = Table(
    "changes",
    metadata,
    # One more than the last, under the publish lock: a sequence would give numbers that commit out of order.
    Column("number", KEY, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("tenant", NAME, nullable=False),
    Column("subject", Text, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    # The owner. What it grants is named, not pointed to: a grant ends in the transaction that deletes it.
    Column("tenant", NAME, primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", NAME, primary_key=True),
    # A tenant's name, or * for everybody.
    Column("grantee", NAME, primary_key=True),
    Column("rights", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    CheckConstraint("kind IN ('task', 'ensemble', 'pack')", name="kind"),
    CheckConstraint("grantee <> tenant", name="grantee"),
    Index("ix_grants_grantee", "grantee", "tenant", "name"),
)
