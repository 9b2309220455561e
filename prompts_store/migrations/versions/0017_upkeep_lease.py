"""When upkeep is next due, for all processes of a database together."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """It is due at once."""
    op.add_column("store_identity", sa.Column("upkeep_due_at", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Each process looks after the store again."""
    op.drop_column("store_identity", "upkeep_due_at")
