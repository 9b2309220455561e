"""The tables of data files and of jobs. The other tables are in `tables`.

    files 1---n job_files n---1 jobs 1---n job_events
                                jobs 1---n training_steps

Rows of files and jobs go only with the purge of their tenant. Keys are numbers in the order of creation,
for lists; callers see ids.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    false,
    text,
)

from prompts_store.database.columns import DIGEST, KEY, NAME, PUBLIC_ID, Instant
from prompts_store.database.tables import metadata

_ALIVE = text("deleted_at IS NULL")
_UNFINISHED = text("finished_at IS NULL")

files = Table(
    "files",
    metadata,
    Column("number", KEY, primary_key=True),
    Column("id", PUBLIC_ID, nullable=False, unique=True),
    Column("tenant", NAME, nullable=False),
    Column("name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", DIGEST, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("deleted_at", Instant, nullable=True),
    Column("deleted_by", Text, nullable=False, default=""),
    # See `files.records.FilePurpose`.
    Column("purpose", String(16), nullable=False, server_default="fine-tune"),
    # See `files.records.DataFile`.
    Column("made_by", PUBLIC_ID, nullable=True),
    Index("ix_files_alive", "tenant", "number", sqlite_where=_ALIVE, postgresql_where=_ALIVE),
    # Equal bytes are stored once for all tenants; the collector asks who still needs them.
    Index("ix_files_sha256", "sha256"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", KEY, primary_key=True),
    Column("id", PUBLIC_ID, nullable=False, unique=True),
    # The kind of work, see `jobs.records.JobKind`; a new kind needs no migration.
    Column("kind", String(32), nullable=False),
    Column("tenant", NAME, nullable=False),
    Column("status", String(16), nullable=False),
    Column("spec", JSON, nullable=False),
    # Taken from the spec: only a process with this base may run the job.
    Column("base_fingerprint", String(128), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("created_by", Text, nullable=False),
    # Its place in the queue: when it was created or resumed. A job that is given back keeps its place.
    Column("queued_at", Instant, nullable=False),
    Column("started_at", Instant, nullable=True),
    Column("finished_at", Instant, nullable=True),
    Column("error", JSON(none_as_null=True), nullable=True),
    Column("progress", JSON, nullable=False),
    Column("result", JSON, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    # No process takes it, and the one that runs it gives it back.
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("attempt", Integer, nullable=False),
    Column("lease_owner", Text, nullable=True),
    # It only grows, so no token is given twice.
    Column("lease_token", BigInteger, nullable=False),
    Column("lease_expires_at", Instant, nullable=True),
    # The highest number ever given to an event of this job.
    Column("last_event", Integer, nullable=False),
    CheckConstraint("(finished_at IS NULL) = (status IN ('queued', 'preparing', 'running'))", name="over"),
    CheckConstraint("(lease_owner IS NOT NULL) = (status IN ('preparing', 'running'))", name="lease"),
    CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="expiry"),
    Index("ix_jobs_tenant", "tenant", "kind", "number"),
    Index("ix_jobs_status", "tenant", "kind", "status", "number"),
    # Small, however many jobs are over. Used to count a tenant's jobs, and to find whose turn it is.
    Index(
        "ix_jobs_open",
        "tenant",
        "kind",
        "status",
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    ),
    Index(
        "ix_jobs_unfinished",
        "base_fingerprint",
        "kind",
        "queued_at",
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    ),
)

job_files = Table(
    "job_files",
    metadata,
    Column("job_number", ForeignKey(jobs.c.number), primary_key=True),
    Column("file_number", ForeignKey(files.c.number), primary_key=True),
    Index("ix_job_files_file_number", "file_number"),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_number", ForeignKey(jobs.c.number), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("data", JSON, nullable=False),
)

training_steps = Table(
    "training_steps",
    metadata,
    # What a job takes of its tenant's month: reserved when it is created or resumed, settled when it is over.
    Column("tenant", NAME, primary_key=True),
    Column("month", Instant, primary_key=True),
    Column("job_number", ForeignKey(jobs.c.number), primary_key=True),
    Column("steps", BigInteger, nullable=False),
    CheckConstraint("steps >= 0", name="steps"),
    Index("ix_training_steps_job_number", "job_number"),
)
