"""The id that a database shares with the folders of its blobs and data files."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create a table for the one id. It stays empty: the code that opens the store knows whether the folders
    fit."""
    op.create_table(
        "store_identity",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("number = 1", name=op.f("ck_store_identity_one")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_store_identity")),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("store_identity")
