"""The key that uploaded a file, or the job that made it: two keys may have one name."""

import sqlalchemy as sa
from alembic import op

revision = "0022_serves_0019"
down_revision = "0021_serves_0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Null: of the files that are there, names alone are known."""
    op.add_column("files", sa.Column("made_by", sa.String(length=32), nullable=True))


def downgrade() -> None:
    """Names alone."""
    op.drop_column("files", "made_by")
