"""Finding, changing and closing rows of jobs, and turning them into the records that the store returns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from prompts_store.database.job_tables import jobs
from prompts_store.errors import InvalidError, LeaseLostError, NotFoundError
from prompts_store.ids import is_id
from prompts_store.jobs import steps
from prompts_store.jobs.events import STATUS, add_events
from prompts_store.jobs.records import KINDS, Job, JobKind, JobStatus, Lease
from prompts_store.text import shown


def check_kind(kind: object) -> JobKind:
    """Return the kind if it is one.

    Raises:
        InvalidError: `invalid_kind`, field `kind`.
    """
    for known in KINDS:
        if kind == known:
            return known
    raise InvalidError(
        f"{shown(kind)} is not a kind of job; it is one of {', '.join(KINDS)}.",
        field="kind",
        code="invalid_kind",
    )


def find_job(connection: Connection, tenant: str, job_id: str, kind: JobKind | None = None) -> Row[Any]:
    """The row of a job; with a kind, only if the job has that kind.

    Raises:
        NotFoundError: `unknown_job`.
    """
    query = select(jobs).where(jobs.c.id == job_id, jobs.c.tenant == tenant)
    if kind is not None:
        query = query.where(jobs.c.kind == kind)
    row = connection.execute(query).one_or_none() if is_id(job_id) else None
    if row is None:
        raise unknown_job(job_id, kind)
    return row


def unknown_job(job_id: str, kind: JobKind | None = None) -> NotFoundError:
    """The error for a job that is not there."""
    what = "job" if kind is None else f"{kind} job"
    return NotFoundError(f"There is no {what} {shown(job_id)}.", field="job", code="unknown_job")


def held(connection: Connection, lease: Lease) -> Row[Any]:
    """The row of the job for which this lease was given.

    A lease that ran out stays good until another process takes the job, because only that makes writing
    unsafe.

    Raises:
        LeaseLostError: another process has the job, or none has.
    """
    query = select(jobs).where(
        jobs.c.id == lease.job_id,
        jobs.c.tenant == lease.tenant,
        jobs.c.lease_token == lease.token,
        jobs.c.lease_owner.is_not(None),
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise LeaseLostError(
            f"The lease of {lease.job_id} is lost: another process runs the job, or it is over; stop "
            "working on it.",
            field="lease",
        )
    return row


def change_job(connection: Connection, number: int, values: Mapping[str, Any]) -> None:
    """Set columns of a job."""
    connection.execute(update(jobs).where(jobs.c.number == number).values(**values))


def close_job(
    connection: Connection,
    number: int,
    status: JobStatus,
    now: datetime,
    *,
    values: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """End a job, its lease and what it has reserved.

    Args:
        values: further columns to set.
        data: further data of the event, besides the status.
    """
    over = {
        "status": status,
        "finished_at": now,
        "lease_owner": None,
        "lease_expires_at": None,
        "paused": False,
    }
    change_job(connection, number, {**over, **(values or {})})
    steps.settle(connection, number)
    add_events(connection, number, [(STATUS, {"status": status, **(data or {})})], now)


def job_record(row: Row[Any]) -> Job:
    """A job, from the columns of `jobs`."""
    return Job(
        id=row.id,
        kind=row.kind,
        tenant=row.tenant,
        status=row.status,
        spec=row.spec,
        created_at=row.created_at,
        created_by=row.created_by,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=row.error,
        progress=row.progress,
        result=row.result,
        cancel_requested=row.cancel_requested,
        attempt=row.attempt,
        paused=row.paused,
    )
