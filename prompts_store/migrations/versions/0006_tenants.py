"""Tenants, their keys, and the feed of changes."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
UNPURGED = sa.text("purge_after IS NOT NULL")


def upgrade() -> None:
    """Whoever owns anything becomes a tenant, made when the first of that was; rows stay as they are."""
    tenants = op.create_table(
        "tenants",
        sa.Column("name", NAME, nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("usage_days", sa.Integer(), nullable=True),
        sa.Column("audit_days", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("suspended_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("purge_after", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("status IN ('active', 'suspended', 'deleted')", name=op.f("ck_tenants_status")),
        sa.CheckConstraint(
            "(status = 'suspended') = (suspended_at IS NOT NULL)", name=op.f("ck_tenants_suspended")
        ),
        sa.CheckConstraint(
            "(status = 'deleted') = (deleted_at IS NOT NULL)", name=op.f("ck_tenants_deleted")
        ),
        sa.CheckConstraint("purge_after IS NULL OR deleted_at IS NOT NULL", name=op.f("ck_tenants_purge")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tenants")),
    )
    op.create_index(
        "ix_tenants_unpurged", "tenants", ["purge_after"], sqlite_where=UNPURGED, postgresql_where=UNPURGED
    )
    op.create_table(
        "keys",
        sa.Column("number", KEY, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("public", sa.String(length=8), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("tasks", sa.JSON(), nullable=True),
        sa.Column("limits", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name=op.f("fk_keys_tenant")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_keys")),
        sa.UniqueConstraint("id", name=op.f("uq_keys_id")),
        sa.UniqueConstraint("public", name=op.f("uq_keys_public")),
    )
    op.create_index("ix_keys_tenant", "keys", ["tenant", "number"])
    op.create_index("ix_keys_name", "keys", ["tenant", "name"])
    op.create_table(
        "changes",
        sa.Column("number", KEY, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_changes")),
    )
    owned = " UNION ALL ".join(
        f"SELECT tenant, created_at FROM {table}" for table in ("tasks", "ensembles", "files", "jobs")
    )
    since = sa.text(f"SELECT tenant, min(created_at) FROM ({owned}) AS owned GROUP BY tenant")
    op.bulk_insert(
        tenants,
        [
            {
                "name": name,
                "display_name": "",
                "weight": 1.0,
                "status": "active",
                "limits": {},
                "created_at": created_at,
                "created_by": "",
            }
            for name, created_at in op.get_bind().execute(since)
        ],
    )


def downgrade() -> None:
    """Without them: other rows never named them."""
    for table in ("changes", "keys", "tenants"):
        op.drop_table(table)
