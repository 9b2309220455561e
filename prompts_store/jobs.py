"""Tuning jobs, as their tenant sees them: make, show, list, cancel, resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from prompts_store.database.tuning_tables import files, tuning_job_files, tuning_jobs
from prompts_store.errors import ConflictError, InvalidError, LimitError, NotFoundError
from prompts_store.files.data_files import find_file
from prompts_store.ids import JOB, check_cursor_id, is_id, new_id
from prompts_store.job_events import STATUS, add_events
from prompts_store.pages import check_limit, decode_cursor, encode_cursor, invalid_cursor, make_page
from prompts_store.records import Page
from prompts_store.text import shown
from prompts_store.tuning_records import ACTIVE, STATUSES, JobStatus, TuningJob

_CURSOR = "jobs"


@dataclass(frozen=True, slots=True)
class JobDraft:
    """A job that is not made yet, checked.

    Attributes:
        files: ids of the data files that it reads, by the field of the request that named them.
        max_unfinished: how many unfinished jobs the tenant may have, this one included; None for any number.
    """

    tenant: str
    spec: Mapping[str, Any]
    base_fingerprint: str
    created_by: str
    files: Mapping[str, str]
    max_unfinished: int | None


def create_job(connection: Connection, draft: JobDraft, now: datetime) -> TuningJob:
    """Put a job into the queue.

    Raises:
        NotFoundError: `unknown_file`, with the field that named it.
        LimitError: `too_many_jobs`.
    """
    numbers = {
        find_file(connection, draft.tenant, file_id, field=field).number
        for field, file_id in draft.files.items()
    }
    _require_room(connection, draft.tenant, draft.max_unfinished)
    job_id = new_id(JOB)
    connection.execute(
        insert(tuning_jobs).values(
            id=job_id,
            tenant=draft.tenant,
            status="queued",
            spec=draft.spec,
            base_fingerprint=draft.base_fingerprint,
            created_at=now,
            created_by=draft.created_by,
            queued_at=now,
            progress={},
            result={},
            cancel_requested=False,
            attempt=0,
            lease_token=0,
            last_event=0,
        )
    )
    row = find_job(connection, draft.tenant, job_id)
    if numbers:
        rows = [{"job_number": row.number, "file_number": number} for number in sorted(numbers)]
        connection.execute(insert(tuning_job_files), rows)
    add_events(connection, row.number, [(STATUS, {"status": "queued"})], now)
    return job_record(row)


def find_job(connection: Connection, tenant: str, job_id: str) -> Row[Any]:
    """The row of a job.

    Raises:
        NotFoundError: `unknown_job`.
    """
    query = select(tuning_jobs).where(tuning_jobs.c.id == job_id, tuning_jobs.c.tenant == tenant)
    row = connection.execute(query).one_or_none() if is_id(job_id) else None
    if row is None:
        raise NotFoundError(f"There is no tuning job {shown(job_id)}.", field="job", code="unknown_job")
    return row


def list_jobs(
    connection: Connection, tenant: str, *, status: str | None, limit: int, cursor: str | None
) -> Page[TuningJob]:
    """A page of a tenant's jobs, newest first.

    Raises:
        InvalidError: a bad status, limit or cursor.
    """
    limit = check_limit(limit)
    before = decode_cursor(_CURSOR, cursor, check_cursor_id)
    query = select(tuning_jobs).where(tuning_jobs.c.tenant == tenant)
    if status is not None:
        query = query.where(tuning_jobs.c.status == check_status(status))
    if before is not None:
        of_tenant = select(tuning_jobs.c.number).where(
            tuning_jobs.c.id == before, tuning_jobs.c.tenant == tenant
        )
        number = connection.execute(of_tenant).scalar()
        if number is None:
            raise invalid_cursor()
        query = query.where(tuning_jobs.c.number < number)
    rows = connection.execute(query.order_by(tuning_jobs.c.number.desc()).limit(limit + 1)).all()
    return make_page(rows, limit, job_record, lambda row: encode_cursor(_CURSOR, row.id))


def cancel_job(connection: Connection, tenant: str, job_id: str, *, by: str, now: datetime) -> TuningJob:
    """Cancel a job: at once where nobody runs it, else as soon as whoever runs it sees the request.

    Raises:
        NotFoundError: `unknown_job`.
        ConflictError: `job_over`.
    """
    row = find_job(connection, tenant, job_id)
    if row.finished_at is not None:
        raise ConflictError(
            f"The job is over: it {_ended(row.status)}; there is nothing to cancel.",
            field="job",
            code="job_over",
        )
    if row.status in ACTIVE and row.lease_expires_at > now:
        if not row.cancel_requested:
            change_job(connection, row.number, {"cancel_requested": True})
            data = {"status": row.status, "cancel_requested": True, "by": by}
            add_events(connection, row.number, [(STATUS, data)], now)
        return job_record(find_job(connection, tenant, job_id))
    # Also when its runner is overdue: should it wake up, its lease is gone.
    close_job(connection, row.number, "cancelled", now, data={"by": by})
    return job_record(find_job(connection, tenant, job_id))


def resume_job(
    connection: Connection, tenant: str, job_id: str, *, by: str, max_unfinished: int | None, now: datetime
) -> TuningJob:
    """Put a job that failed or was cancelled into the queue again.

    Raises:
        NotFoundError: `unknown_job`.
        ConflictError: `job_not_stopped`; `file_deleted`.
        LimitError: `too_many_jobs`.
    """
    row = find_job(connection, tenant, job_id)
    if row.status not in ("failed", "cancelled"):
        raise ConflictError(
            f"The job is {row.status}; only one that failed or was cancelled is resumed.",
            field="job",
            code="job_not_stopped",
        )
    gone = (
        select(files.c.id)
        .join(tuning_job_files, tuning_job_files.c.file_number == files.c.number)
        .where(tuning_job_files.c.job_number == row.number, files.c.deleted_at.is_not(None))
        .order_by(files.c.number)
        .limit(1)
    )
    file_id = connection.execute(gone).scalar()
    if file_id is not None:
        raise ConflictError(
            f"The job learns from {file_id}, which was deleted; upload it again and start a new job.",
            field="job",
            code="file_deleted",
        )
    _require_room(connection, tenant, max_unfinished)
    values = {
        "status": "queued",
        "queued_at": now,
        "finished_at": None,
        "error": None,
        "cancel_requested": False,
    }
    change_job(connection, row.number, values)
    add_events(connection, row.number, [(STATUS, {"status": "queued", "by": by})], now)
    return job_record(find_job(connection, tenant, job_id))


def change_job(connection: Connection, number: int, values: Mapping[str, Any]) -> None:
    """Set columns of a job."""
    connection.execute(update(tuning_jobs).where(tuning_jobs.c.number == number).values(**values))


def close_job(
    connection: Connection,
    number: int,
    status: JobStatus,
    now: datetime,
    *,
    values: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """A job is over; its lease ends with it.

    Args:
        values: further columns.
        data: of the event, beside the status.
    """
    over = {"status": status, "finished_at": now, "lease_owner": None, "lease_expires_at": None}
    change_job(connection, number, {**over, **(values or {})})
    add_events(connection, number, [(STATUS, {"status": status, **(data or {})})], now)


def check_status(status: object) -> JobStatus:
    """The status itself, if it is one.

    Raises:
        InvalidError: `invalid_status`, field `status`.
    """
    for known in STATUSES:
        if status == known:
            return known
    raise InvalidError(
        f"{shown(status)} is not a status of a job; it is one of {', '.join(STATUSES)}.",
        field="status",
        code="invalid_status",
    )


def job_record(row: Row[Any]) -> TuningJob:
    """A job from the columns of `tuning_jobs`."""
    return TuningJob(
        id=row.id,
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
    )


def _require_room(connection: Connection, tenant: str, most: int | None) -> None:
    if most is None:
        return
    query = select(func.count()).where(tuning_jobs.c.tenant == tenant, tuning_jobs.c.finished_at.is_(None))
    number = connection.execute(query).scalar_one()
    if number >= most:
        raise LimitError(
            f"{number} tuning jobs are unfinished and {most} is the most; wait for one to end or cancel one.",
            code="too_many_jobs",
        )


def _ended(status: str) -> str:
    return "was cancelled" if status == "cancelled" else status
