"""What a tenant lets others use."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")


def upgrade() -> None:
    """Empty: nothing was shared before."""
    op.create_table(
        "grants",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("grantee", NAME, nullable=False),
        sa.Column("rights", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('task', 'ensemble')", name=op.f("ck_grants_kind")),
        sa.CheckConstraint("grantee <> tenant", name=op.f("ck_grants_grantee")),
        sa.PrimaryKeyConstraint("tenant", "kind", "name", "grantee", name=op.f("pk_grants")),
    )
    op.create_index("ix_grants_grantee", "grants", ["grantee", "tenant", "name"])


def downgrade() -> None:
    """Without it, everybody has what is their own."""
    op.drop_table("grants")
