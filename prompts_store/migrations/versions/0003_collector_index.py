"""The index that the collector walks: only blobs that nothing names, in the order in which it takes them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNREFERENCED = sa.text("unreferenced_at IS NOT NULL")


def upgrade() -> None:
    """An index of the few in place of one that held every blob."""
    op.drop_index("ix_blobs_unreferenced_at", table_name="blobs")
    op.create_index(
        "ix_blobs_unreferenced",
        "blobs",
        ["unreferenced_at", "digest"],
        unique=False,
        sqlite_where=UNREFERENCED,
        postgresql_where=UNREFERENCED,
    )


def downgrade() -> None:
    """The index of 0001."""
    op.drop_index("ix_blobs_unreferenced", table_name="blobs")
    op.create_index("ix_blobs_unreferenced_at", "blobs", ["unreferenced_at"], unique=False)
