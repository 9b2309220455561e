"""Who runs which job: leases with a fencing token.

Whoever runs jobs claims one for some seconds and renews that while it works. A lease that ran out may be
taken by another, with a greater token; from then on nothing written with the smaller one is accepted, however
late its owner wakes up. Nobody waits for a clock to be right: one that is wrong costs work done twice, never
two runners that both write.

Every change here is made under the publish lock, which one writer of the whole database holds at a time; so
two claims at one moment are two claims one after the other, on every database.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select

from prompts_store.database.tuning_tables import tuning_jobs
from prompts_store.errors import LeaseLostError
from prompts_store.job_events import STATUS, add_events
from prompts_store.jobs import change_job, close_job, job_record
from prompts_store.tuning_records import ACTIVE, JobLease, JobStatus, TuningJob


def claim_job(
    connection: Connection, owner: str, *, base_fingerprint: str, now: datetime, expires_at: datetime
) -> tuple[TuningJob, JobLease] | None:
    """Take the job whose turn it is; None where there is none for this base."""
    row = _next(connection, base_fingerprint, now)
    if row is None:
        return None
    token, attempt = row.lease_token + 1, row.attempt + 1
    values = {
        "status": "preparing",
        "attempt": attempt,
        "started_at": row.started_at or now,
        "lease_owner": owner,
        "lease_token": token,
        "lease_expires_at": expires_at,
    }
    change_job(connection, row.number, values)
    add_events(connection, row.number, [(STATUS, {"status": "preparing", "attempt": attempt})], now)
    lease = JobLease(row.id, row.tenant, owner, token, expires_at)
    return job_record(held(connection, lease)), lease


def held(connection: Connection, lease: JobLease) -> Row[Any]:
    """The row of the job that a lease is for.

    A lease that ran out is good until another takes the job: only that makes writing unsafe.

    Raises:
        LeaseLostError: the job is in other hands, or in nobody's.
    """
    query = select(tuning_jobs).where(
        tuning_jobs.c.id == lease.job_id,
        tuning_jobs.c.lease_token == lease.token,
        tuning_jobs.c.lease_owner.is_not(None),
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise LeaseLostError(
            f"The lease of {lease.job_id} is lost: another runs the job, or it is over; stop working on it.",
            field="lease",
        )
    return row


def renew_lease(connection: Connection, lease: JobLease, expires_at: datetime) -> JobLease:
    """The same lease until later.

    Raises:
        LeaseLostError: it is lost.
    """
    row = held(connection, lease)
    change_job(connection, row.number, {"lease_expires_at": expires_at})
    return JobLease(lease.job_id, lease.tenant, lease.owner, lease.token, expires_at)


def release_job(connection: Connection, lease: JobLease, now: datetime) -> None:
    """Give a job back, to its old place in the queue; one that was to be cancelled is cancelled.

    Raises:
        LeaseLostError: the lease is lost.
    """
    row = held(connection, lease)
    if row.cancel_requested:
        close_job(connection, row.number, "cancelled", now)
        return
    change_job(connection, row.number, {"status": "queued", "lease_owner": None, "lease_expires_at": None})
    add_events(connection, row.number, [(STATUS, {"status": "queued"})], now)


def update_job(
    connection: Connection,
    lease: JobLease,
    *,
    status: JobStatus | None,
    progress: Mapping[str, Any] | None,
    now: datetime,
) -> TuningJob:
    """Say how far a job is.

    Raises:
        LeaseLostError: the lease is lost.
    """
    row = held(connection, lease)
    values: dict[str, Any] = {}
    if progress is not None:
        values["progress"] = progress
    if status is not None and status != row.status:
        values["status"] = status
    if values:
        change_job(connection, row.number, values)
    if "status" in values:
        add_events(connection, row.number, [(STATUS, {"status": status})], now)
    return job_record(held(connection, lease))


def finish_job(
    connection: Connection,
    lease: JobLease,
    status: JobStatus,
    *,
    result: Mapping[str, Any],
    error: Mapping[str, Any] | None,
    now: datetime,
) -> TuningJob:
    """A job is over, and so is its lease.

    Raises:
        LeaseLostError: the lease is lost.
    """
    row = held(connection, lease)
    values = {"result": result, "error": error}
    close_job(connection, row.number, status, now, values=values, data={"error": error} if error else None)
    return job_record(connection.execute(select(tuning_jobs).where(tuning_jobs.c.number == row.number)).one())


def lease_end(now: datetime, lease_seconds: float) -> datetime:
    """When a lease that begins now runs out."""
    return now + timedelta(seconds=lease_seconds)


def _next(connection: Connection, base_fingerprint: str, now: datetime) -> Row[Any] | None:
    """The job whose turn it is: of the tenant with the fewest at work, the one that has waited longest.

    A job whose lease ran out waits like a queued one, at the place that it had.
    """
    at_work = and_(tuning_jobs.c.finished_at.is_(None), tuning_jobs.c.status.in_(ACTIVE))
    busy = (
        select(tuning_jobs.c.tenant, func.count().label("jobs"))
        .where(at_work, tuning_jobs.c.lease_expires_at > now)
        .group_by(tuning_jobs.c.tenant)
        .subquery()
    )
    waiting = or_(tuning_jobs.c.status == "queued", tuning_jobs.c.lease_expires_at <= now)
    query = (
        select(tuning_jobs)
        .outerjoin(busy, busy.c.tenant == tuning_jobs.c.tenant)
        .where(
            tuning_jobs.c.finished_at.is_(None),
            tuning_jobs.c.base_fingerprint == base_fingerprint,
            waiting,
        )
        .order_by(func.coalesce(busy.c.jobs, 0), tuning_jobs.c.queued_at, tuning_jobs.c.number)
        .limit(1)
    )
    return connection.execute(query).one_or_none()
