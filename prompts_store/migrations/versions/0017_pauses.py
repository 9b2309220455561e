"""Jobs that are paused, and what each data file is for."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """No job was paused before, and every file was training data."""
    op.add_column("jobs", sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column(
        "files", sa.Column("purpose", sa.String(length=16), server_default="fine-tune", nullable=False)
    )


def downgrade() -> None:
    """Paused jobs go on."""
    op.drop_column("files", "purpose")
    op.drop_column("jobs", "paused")
