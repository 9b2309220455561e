"""The store's jobs, for the processes that run them: leases with a fencing token.

A process claims a job for some seconds, and renews the lease while it works. Another process may take a job
whose lease has run out, with a greater token. From then on, nothing written with the smaller token is
accepted, however late its owner wakes up. No clock needs to be right: a wrong clock costs work that is done
twice, but two processes never both write.

Every change here is made under the publish lock, which one writer of the whole database holds at a time. So
two claims at the same moment happen one after the other, in every database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, func, not_, or_, select

from prompts_store import checks
from prompts_store.base import StoreBase
from prompts_store.database import EVERY_TENANT
from prompts_store.database.job_tables import jobs
from prompts_store.errors import InvalidError
from prompts_store.jobs.events import STATUS, add_events, check_events
from prompts_store.jobs.records import ACTIVE, MATRIX_DTYPE, OVER, Job, JobKind, JobStatus, Lease
from prompts_store.jobs.rows import change_job, check_kind, close_job, held, job_record
from prompts_store.records import LeaseHolder
from prompts_store.tenants import feed, standing
from prompts_store.text import shown

MAX_PROGRESS_BYTES = 65_536
MAX_RESULT_BYTES = 1_048_576
MAX_ERROR_BYTES = 16_384
_FIRST_MATRIX_DTYPE = "float32"


class JobClaims(StoreBase):
    """Running jobs under a lease. Every write names its lease; on LeaseLostError, stop."""

    def claim_job(
        self,
        kind: JobKind,
        owner: str,
        lease_seconds: float,
        base_fingerprint: str,
        matrix_dtype: str = _FIRST_MATRIX_DTYPE,
        without_tenants: Sequence[str] = (),
    ) -> tuple[Job, Lease] | None:
        """Take the job whose turn it is, with a lease to run it; None if no job for this base is waiting.

        It is the turn of the tenant that has the fewest jobs of this kind running, and of its job that has
        waited longest. A job whose lease ran out also waits. Jobs of a suspended or deleted tenant are
        skipped, and so are paused ones. The job is `preparing` from now on. Look at its `cancel_requested`:
        the process that ran it before may have died without seeing the request.

        Args:
            owner: who will run it; shown to people.
            lease_seconds: until the lease must be renewed.
            matrix_dtype: of the base's matrices. A job that was begun with another is left.
            without_tenants: whose jobs are left.
        """
        check_kind(kind)
        checks.check_text(owner, field="owner")
        checks.check_text(matrix_dtype, field="matrix_dtype")
        checks.check_fingerprint(base_fingerprint, field="base_fingerprint")
        seconds = _check_seconds(lease_seconds)
        # Every process looks each second: not under the publish lock, unless there is something to take.
        with self._database.read(EVERY_TENANT) as connection:
            now = self._clock()
            if _next(connection, kind, base_fingerprint, matrix_dtype, without_tenants, now) is None:
                return None
        with self._database.write(EVERY_TENANT) as connection:
            now = self._clock()
            row = _next(connection, kind, base_fingerprint, matrix_dtype, without_tenants, now)
            if row is None:
                return None
            token, attempt = row.lease_token + 1, row.attempt + 1
            expires_at = now + timedelta(seconds=seconds)
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
            lease = Lease(row.id, row.tenant, owner, token, expires_at)
            return job_record(held(connection, lease)), lease

    def jobs_of_other_matrices(self, kind: JobKind, base_fingerprint: str, matrix_dtype: str) -> list[Job]:
        """Waiting jobs for this base that `claim_job` leaves, because they were begun with matrices of
        another type."""
        check_kind(kind)
        with self._database.read(EVERY_TENANT) as connection:
            query = select(jobs).where(
                *_waiting(kind, base_fingerprint, self._clock()), not_(_goes_on(matrix_dtype))
            )
            return [job_record(row) for row in connection.execute(query.order_by(jobs.c.number))]

    def job_holders(self) -> list[LeaseHolder]:
        """Which processes run jobs, of all tenants, by name."""
        owner, expires = jobs.c.lease_owner, jobs.c.lease_expires_at
        query = (
            select(owner, func.count(), func.max(expires))
            .where(jobs.c.finished_at.is_(None), jobs.c.status.in_(ACTIVE), expires > self._clock())
            .group_by(owner)
            .order_by(owner)
        )
        with self._database.read(EVERY_TENANT) as connection:
            return [LeaseHolder(*row) for row in connection.execute(query)]

    def renew_lease(self, lease: Lease, lease_seconds: float) -> Lease:
        """The lease, extended to last this many seconds from now. Raises LeaseLostError."""
        seconds = _check_seconds(lease_seconds)
        with self._database.write(lease.tenant) as connection:
            row = held(connection, lease)
            expires_at = self._clock() + timedelta(seconds=seconds)
            change_job(connection, row.number, {"lease_expires_at": expires_at})
        return replace(lease, expires_at=expires_at)

    def release_job(self, lease: Lease) -> None:
        """Give a job back unfinished. It keeps its place in the queue. Raises LeaseLostError."""
        with self._database.write(lease.tenant) as connection:
            now = self._clock()
            row = held(connection, lease)
            if row.cancel_requested:
                close_job(connection, row.number, "cancelled", now)
                return
            change_job(
                connection, row.number, {"status": "queued", "lease_owner": None, "lease_expires_at": None}
            )
            add_events(connection, row.number, [(STATUS, {"status": "queued"})], now)
            feed.record(connection, "job_queued", lease.tenant, row.kind, now=now)

    def update_job(
        self,
        lease: Lease,
        *,
        status: Literal["preparing", "running"] | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> Job:
        """Report how far the job is. The `cancel_requested` of the result says whether to stop.

        Args:
            status: None leaves it unchanged.
            progress: a JSON object that replaces the last one; None leaves that.

        Raises:
            LeaseLostError: stop, and write nothing more.
            InvalidError: names the field at fault.
        """
        if status is not None:
            _check_one_of(status, ACTIVE)
        checked = _check_object(progress, field="progress", limit_bytes=MAX_PROGRESS_BYTES)
        with self._database.write(lease.tenant) as connection:
            row = held(connection, lease)
            values: dict[str, Any] = {}
            if checked is not None:
                values["progress"] = checked
            if status is not None and status != row.status:
                values["status"] = status
            if values:
                change_job(connection, row.number, values)
            if "status" in values:
                add_events(connection, row.number, [(STATUS, {"status": status})], self._clock())
            return job_record(held(connection, lease))

    def append_events(self, lease: Lease, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Add to the job's events, in order: all of them or none.

        Args:
            events: kinds and JSON objects. The kind `status` is reserved: the store writes it with each
                change of status.

        Raises:
            LeaseLostError: stop, and write nothing more.
            InvalidError: names the field at fault.
        """
        checked = check_events(events)
        with self._database.write(lease.tenant) as connection:
            row = held(connection, lease)
            add_events(connection, row.number, checked, self._clock())

    def finish_job(
        self,
        lease: Lease,
        status: Literal["succeeded", "failed", "cancelled"],
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> Job:
        """End the job and its lease. This works once: a second call finds the lease lost.

        Raises:
            LeaseLostError: write nothing more; look at the job to see its state.
            InvalidError: names the field at fault.
        """
        _check_one_of(status, OVER)
        checked_result = _check_object(result, field="result", limit_bytes=MAX_RESULT_BYTES)
        checked_error = _check_object(error, field="error", limit_bytes=MAX_ERROR_BYTES)
        with self._database.write(lease.tenant) as connection:
            row = held(connection, lease)
            values = {"result": checked_result or {}, "error": checked_error}
            close_job(
                connection,
                row.number,
                status,
                self._clock(),
                values=values,
                data={"error": checked_error} if checked_error else None,
            )
            return job_record(connection.execute(select(jobs).where(jobs.c.number == row.number)).one())


def _check_seconds(seconds: float) -> float:
    if checks.is_finite(seconds) and seconds > 0:
        return float(seconds)
    raise InvalidError(
        f"A lease cannot last {shown(seconds)} seconds; give a number above 0.", field="lease_seconds"
    )


def _check_one_of(status: str, known: tuple[JobStatus, ...]) -> None:
    if status not in known:
        raise InvalidError(
            f"The status {shown(status)} cannot be set here; it must be one of {', '.join(known)}.",
            field="status",
        )


def _check_object(value: Mapping[str, Any] | None, *, field: str, limit_bytes: int) -> dict[str, Any] | None:
    return None if value is None else checks.check_object(value, field=field, limit_bytes=limit_bytes)


def _waiting(kind: JobKind, base_fingerprint: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Of the jobs for this base, those that nobody runs and that are not paused. One whose lease ran out
    waits like a queued one."""
    return (
        jobs.c.finished_at.is_(None),
        jobs.c.base_fingerprint == base_fingerprint,
        jobs.c.kind == kind,
        not_(jobs.c.paused),
        or_(jobs.c.status == "queued", jobs.c.lease_expires_at <= now),
        jobs.c.tenant.not_in(standing.stopped_tenants()),
    )


def _goes_on(matrix_dtype: str) -> ColumnElement[bool]:
    """Whether a job may go on with matrices of this type: it was begun with them, or not at all."""
    settled = jobs.c.progress["settled"].as_string()
    begun_with = jobs.c.progress[("settled", MATRIX_DTYPE)].as_string()
    return or_(settled.is_(None), func.coalesce(begun_with, _FIRST_MATRIX_DTYPE) == matrix_dtype)


def _next(
    connection: Connection,
    kind: JobKind,
    base_fingerprint: str,
    matrix_dtype: str,
    without_tenants: Sequence[str],
    now: datetime,
) -> Row[Any] | None:
    """The job whose turn it is: the one that has waited longest, of the tenant with the fewest jobs of this
    kind running.

    A job whose lease ran out waits like a queued one, at its old place.
    """
    at_work = and_(jobs.c.finished_at.is_(None), jobs.c.status.in_(ACTIVE))
    busy = (
        select(jobs.c.tenant, func.count().label("jobs"))
        .where(jobs.c.kind == kind, at_work, jobs.c.lease_expires_at > now)
        .group_by(jobs.c.tenant)
        .subquery()
    )
    query = (
        select(jobs)
        .outerjoin(busy, busy.c.tenant == jobs.c.tenant)
        .where(*_waiting(kind, base_fingerprint, now), _goes_on(matrix_dtype))
        .where(jobs.c.tenant.not_in(without_tenants))
        .order_by(func.coalesce(busy.c.jobs, 0), jobs.c.queued_at, jobs.c.number)
        .limit(1)
    )
    return connection.execute(query).one_or_none()
