"""What was used: a row for each item, and the sums of each hour."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
TASK = sa.String(length=129).with_variant(sa.String(length=129, collation="C"), "postgresql")
OUTCOMES = "outcome IN ('answered', 'failed', 'cancelled')"


def upgrade() -> None:
    """Counting begins now: what was used before is not known."""
    op.create_table(
        "usage",
        sa.Column("replica", sa.String(length=16), nullable=False),
        sa.Column("sequence", KEY, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("task", TASK, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("work_units", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.CheckConstraint(OUTCOMES, name=op.f("ck_usage_outcome")),
        sa.PrimaryKeyConstraint("replica", "sequence", name=op.f("pk_usage")),
    )
    op.create_index("ix_usage_at", "usage", ["tenant", "at"])
    op.create_table(
        "usage_hours",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("task", TASK, nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("tokens_in", sa.BigInteger(), nullable=False),
        sa.Column("tokens_out", sa.BigInteger(), nullable=False),
        sa.Column("work_units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(OUTCOMES, name=op.f("ck_usage_hours_outcome")),
        sa.PrimaryKeyConstraint("tenant", "hour", "key", "task", "outcome", name=op.f("pk_usage_hours")),
    )
    op.create_index("ix_usage_hours_hour", "usage_hours", ["hour"])


def downgrade() -> None:
    """Without them: nothing refers to them."""
    op.drop_table("usage_hours")
    op.drop_table("usage")
