"""The index by which usage of some tasks is found among that of all: the console asks for 25 at a time."""

from alembic import op

revision = "0020_serves_0019"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index the hours of each task."""
    op.create_index("ix_usage_hours_task", "usage_hours", ["tenant", "task", "hour"], unique=False)


def downgrade() -> None:
    """Read the hours of all tasks again."""
    op.drop_index("ix_usage_hours_task", table_name="usage_hours")
