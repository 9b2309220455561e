"""What each may use over time: what is spoken for, and what processes have leased of it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")


def upgrade() -> None:
    """Nobody has used anything yet; months begin with what `usage_hours` says."""
    op.create_table(
        "budget_uses",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("limit", sa.String(length=32), nullable=False),
        sa.Column("moment", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", "limit", name=op.f("pk_budget_uses")),
    )
    op.create_index("ix_budget_uses_moment", "budget_uses", ["moment"])
    op.create_table(
        "budget_leases",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("limit", sa.String(length=32), nullable=False),
        sa.Column("replica", sa.String(length=16), nullable=False),
        sa.Column("window", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", "limit", "replica", name=op.f("pk_budget_leases")),
    )
    op.create_index("ix_budget_leases_expires_at", "budget_leases", ["expires_at"])


def downgrade() -> None:
    """Without them: nothing refers to them."""
    op.drop_table("budget_leases")
    op.drop_table("budget_uses")
