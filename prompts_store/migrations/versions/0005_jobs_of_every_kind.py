"""Tables for jobs of every kind, in place of those for tuning jobs: `jobs`, `job_files`, `job_events`."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Frozen copies: a migration must not change when the code's own types change.
KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
PUBLIC_ID = sa.String(length=32)
UNFINISHED = sa.text("finished_at IS NULL")

NEW = ("jobs", "job_files", "job_events")
OLD = ("tuning_jobs", "tuning_job_files", "tuning_events")
JOB = (
    "number, id, tenant, status, spec, base_fingerprint, created_at, created_by, queued_at, started_at, "
    "finished_at, error, progress, result, cancel_requested, attempt, lease_owner, lease_token, "
    "lease_expires_at, last_event"
)
FILE = "job_number, file_number"
EVENT = "job_number, seq, at, kind, data"


def upgrade() -> None:
    """Every existing job is a tuning job. Its number, its lease and its events stay as they are."""
    jobs, files, events = NEW
    _create_tables(
        NEW,
        [sa.Column("kind", sa.String(length=32), nullable=False)],
        {
            "ix_jobs_tenant": ["tenant", "kind", "number"],
            "ix_jobs_status": ["tenant", "kind", "status", "number"],
        },
        {
            "ix_jobs_open": ["tenant", "kind", "status"],
            "ix_jobs_unfinished": ["base_fingerprint", "kind", "queued_at"],
        },
    )
    _copy(OLD[0], jobs, f"'tuning', {JOB}", f"kind, {JOB}")
    _copy(OLD[1], files, FILE, FILE)
    _copy(OLD[2], events, EVENT, EVENT)
    _go_on_numbering(jobs)
    _drop(OLD)


def downgrade() -> None:
    """Restore the tables of 0002 with the tuning jobs. They have no place for jobs of other kinds."""
    jobs, files, events = OLD
    _create_tables(
        OLD,
        [],
        {
            "ix_tuning_jobs_tenant": ["tenant", "number"],
            "ix_tuning_jobs_status": ["tenant", "status", "number"],
        },
        {
            "ix_tuning_jobs_open": ["tenant", "status"],
            "ix_tuning_jobs_unfinished": ["base_fingerprint", "queued_at"],
        },
    )
    tuning = "job_number IN (SELECT number FROM jobs WHERE kind = 'tuning')"
    _copy(NEW[0], jobs, JOB, JOB, where="kind = 'tuning'")
    _copy(NEW[1], files, FILE, FILE, where=tuning)
    _copy(NEW[2], events, EVENT, EVENT, where=tuning)
    _go_on_numbering(jobs)
    _drop(NEW)


def _create_tables(
    names: tuple[str, str, str],
    more: list[sa.Column[str]],
    indices: dict[str, list[str]],
    small_indices: dict[str, list[str]],
) -> None:
    """Create the three tables under these names. The small indices hold only unfinished jobs."""
    jobs, files, events = names
    op.create_table(
        jobs,
        sa.Column("number", KEY, nullable=False),
        sa.Column("id", PUBLIC_ID, nullable=False),
        *more,
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
            name=op.f(f"ck_{jobs}_over"),
        ),
        sa.CheckConstraint(
            "(lease_owner IS NOT NULL) = (status IN ('preparing', 'running'))", name=op.f(f"ck_{jobs}_lease")
        ),
        sa.CheckConstraint(
            "(lease_owner IS NULL) = (lease_expires_at IS NULL)", name=op.f(f"ck_{jobs}_expiry")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f(f"pk_{jobs}")),
        sa.UniqueConstraint("id", name=op.f(f"uq_{jobs}_id")),
    )
    for name, columns in indices.items():
        op.create_index(name, jobs, columns)
    for name, columns in small_indices.items():
        op.create_index(name, jobs, columns, sqlite_where=UNFINISHED, postgresql_where=UNFINISHED)
    of_job = sa.ForeignKeyConstraint(["job_number"], [f"{jobs}.number"], name=op.f(f"fk_{files}_job_number"))
    op.create_table(
        files,
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("file_number", KEY, nullable=False),
        of_job,
        sa.ForeignKeyConstraint(["file_number"], ["files.number"], name=op.f(f"fk_{files}_file_number")),
        sa.PrimaryKeyConstraint("job_number", "file_number", name=op.f(f"pk_{files}")),
    )
    op.create_index(f"ix_{files}_file_number", files, ["file_number"])
    of_job = sa.ForeignKeyConstraint(["job_number"], [f"{jobs}.number"], name=op.f(f"fk_{events}_job_number"))
    op.create_table(
        events,
        sa.Column("job_number", KEY, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        of_job,
        sa.PrimaryKeyConstraint("job_number", "seq", name=op.f(f"pk_{events}")),
    )


def _copy(source: str, target: str, values: str, columns: str, where: str = "TRUE") -> None:
    op.execute(f"INSERT INTO {target} ({columns}) SELECT {values} FROM {source} WHERE {where}")


def _go_on_numbering(table: str) -> None:
    """PostgreSQL keeps its counter outside the table; SQLite counts from the table's highest number."""
    if op.get_bind().dialect.name == "postgresql":
        highest = f"(SELECT max(number) FROM {table})"
        op.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'number'), {highest})")


def _drop(names: tuple[str, str, str]) -> None:
    for name in reversed(names):
        op.drop_table(name)
