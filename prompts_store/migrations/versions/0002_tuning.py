"""Data files, tuning jobs and their events."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types change.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
DIGEST = sa.String(length=64)
PUBLIC_ID = sa.String(length=32)
ALIVE = sa.text("deleted_at IS NULL")
UNFINISHED = sa.text("finished_at IS NULL")


def upgrade() -> None:
    """Create every table, referenced tables first."""
    _create_files()
    _create_jobs()
    _create_job_files()
    _create_events()


def downgrade() -> None:
    """Drop every table; their indices go with them."""
    for table in ("tuning_events", "tuning_job_files", "tuning_jobs", "files"):
        op.drop_table(table)


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("number", KEY, nullable=False),
        sa.Column("id", PUBLIC_ID, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", DIGEST, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("deleted_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_files")),
        sa.UniqueConstraint("id", name=op.f("uq_files_id")),
    )
    op.create_index(
        "ix_files_alive", "files", ["tenant", "number"], sqlite_where=ALIVE, postgresql_where=ALIVE
    )
    op.create_index("ix_files_sha256", "files", ["sha256"])


def _create_jobs() -> None:
    op.create_table(
        "tuning_jobs",
        sa.Column("number", KEY, nullable=False),
        sa.Column("id", PUBLIC_ID, nullable=False),
        sa.Column("tenant", NAME, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("base_fingerprint", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_at", sa.BigInteger(), nullable=True),
        sa.Column("last_event", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (status IN ('queued', 'preparing', 'running'))",
            name=op.f("ck_tuning_jobs_over"),
        ),
        sa.CheckConstraint(
            "(lease_owner IS NOT NULL) = (status IN ('preparing', 'running'))",
            name=op.f("ck_tuning_jobs_lease"),
        ),
        sa.CheckConstraint(
            "(lease_owner IS NULL) = (lease_expires_at IS NULL)", name=op.f("ck_tuning_jobs_expiry")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_tuning_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_tuning_jobs_id")),
    )
    op.create_index("ix_tuning_jobs_tenant", "tuning_jobs", ["tenant", "number"])
    op.create_index("ix_tuning_jobs_status", "tuning_jobs", ["tenant", "status", "number"])
    op.create_index(
        "ix_tuning_jobs_open",
        "tuning_jobs",
        ["tenant", "status"],
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    op.create_index(
        "ix_tuning_jobs_unfinished",
        "tuning_jobs",
        ["base_fingerprint", "queued_at"],
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )


def _create_job_files() -> None:
    op.create_table(
        "tuning_job_files",
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("file_number", KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["job_number"], ["tuning_jobs.number"], name=op.f("fk_tuning_job_files_job_number")
        ),
        sa.ForeignKeyConstraint(
            ["file_number"], ["files.number"], name=op.f("fk_tuning_job_files_file_number")
        ),
        sa.PrimaryKeyConstraint("job_number", "file_number", name=op.f("pk_tuning_job_files")),
    )
    op.create_index("ix_tuning_job_files_file_number", "tuning_job_files", ["file_number"])


def _create_events() -> None:
    op.create_table(
        "tuning_events",
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_number"], ["tuning_jobs.number"], name=op.f("fk_tuning_events_job_number")
        ),
        sa.PrimaryKeyConstraint("job_number", "seq", name=op.f("pk_tuning_events")),
    )
