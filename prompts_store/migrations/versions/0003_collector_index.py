"""The index that the collector reads: only blobs that nothing names, in the order in which it removes
them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNREFERENCED = sa.text("unreferenced_at IS NOT NULL")


def upgrade() -> None:
    """Replace the index of all blobs by one of those few."""
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
    """Restore the index of 0001."""
    op.drop_index("ix_blobs_unreferenced", table_name="blobs")
    op.create_index("ix_blobs_unreferenced_at", "blobs", ["unreferenced_at"], unique=False)
