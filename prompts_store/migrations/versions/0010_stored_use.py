"""How much each tenant keeps, and the training steps of its jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types do.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")

COUNTED = """
    INSERT INTO stored_use (tenant, prompts, prompt_bytes, file_bytes)
    SELECT tenant, SUM(prompts), SUM(prompt_bytes), SUM(file_bytes) FROM (
        SELECT tasks.tenant AS tenant, 1 AS prompts, 4 * CAST(length AS BIGINT) * width AS prompt_bytes,
            0 AS file_bytes
        FROM versions JOIN tasks ON tasks.id = versions.task_id WHERE versions.deleted_at IS NULL
        UNION ALL
        SELECT tenant, 0, 0, size_bytes FROM files WHERE deleted_at IS NULL
    ) AS rows_of_all GROUP BY tenant
"""


def upgrade() -> None:
    """Count what is there. Jobs that were created before take nothing of a month."""
    op.create_table(
        "stored_use",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("prompts", sa.BigInteger(), nullable=False),
        sa.Column("prompt_bytes", sa.BigInteger(), nullable=False),
        sa.Column("file_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_stored_use")),
    )
    op.execute(COUNTED)
    op.create_table(
        "training_steps",
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("month", sa.BigInteger(), nullable=False),
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("steps >= 0", name=op.f("ck_training_steps_steps")),
        sa.ForeignKeyConstraint(["job_number"], ["jobs.number"], name=op.f("fk_training_steps_job_number")),
        sa.PrimaryKeyConstraint("tenant", "month", "job_number", name=op.f("pk_training_steps")),
    )
    op.create_index("ix_training_steps_job_number", "training_steps", ["job_number"])
    for moves in ("alias_moves", "ensemble_alias_moves"):
        op.create_index(f"ix_{moves}_back_id", moves, ["back_id"])


def downgrade() -> None:
    """Without them: nothing refers to them."""
    for moves in ("alias_moves", "ensemble_alias_moves"):
        op.drop_index(f"ix_{moves}_back_id", table_name=moves)
    op.drop_table("training_steps")
    op.drop_table("stored_use")
