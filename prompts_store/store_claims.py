"""The store's tuning jobs, for whoever runs them: claims, leases, progress, the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prompts_store import checks, claims, job_events
from prompts_store.errors import InvalidError
from prompts_store.store_base import StoreBase
from prompts_store.text import shown
from prompts_store.tuning_records import ACTIVE, OVER, JobLease, JobStatus, TuningJob

MAX_PROGRESS_BYTES = 65_536
MAX_RESULT_BYTES = 1_048_576
MAX_ERROR_BYTES = 16_384


class JobClaims(StoreBase):
    """Running jobs under a lease. Every write names its lease; LeaseLostError says to stop."""

    def claim_job(
        self, owner: str, lease_seconds: float, base_fingerprint: str
    ) -> tuple[TuningJob, JobLease] | None:
        """Take the job whose turn it is, and the lease to run it; None where none waits for this base.

        Its turn: of the tenant with the fewest jobs at work, the job that has waited longest. A job whose
        lease ran out waits too. It is `preparing` from now on. Look at its `cancel_requested`: whoever ran
        it before may have died with the request unseen.

        Args:
            owner: who will run it, for people.
            lease_seconds: until the lease must be renewed.
        """
        checks.check_text(owner, field="owner")
        checks.check_fingerprint(base_fingerprint, field="base_fingerprint")
        seconds = _check_seconds(lease_seconds)
        with self._database.write() as connection:
            now = self._clock()
            return claims.claim_job(
                connection,
                owner,
                base_fingerprint=base_fingerprint,
                now=now,
                expires_at=claims.lease_end(now, seconds),
            )

    def renew_lease(self, lease: JobLease, lease_seconds: float) -> JobLease:
        """The lease, to last so many seconds from now. LeaseLostError."""
        seconds = _check_seconds(lease_seconds)
        with self._database.write() as connection:
            return claims.renew_lease(connection, lease, claims.lease_end(self._clock(), seconds))

    def release_job(self, lease: JobLease) -> None:
        """Give a job back unfinished: it keeps its place in the queue. LeaseLostError."""
        with self._database.write() as connection:
            claims.release_job(connection, lease, self._clock())

    def update_job(
        self,
        lease: JobLease,
        *,
        status: Literal["preparing", "running"] | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> TuningJob:
        """Say how far the job is; the answer's `cancel_requested` says whether to stop.

        Args:
            status: None leaves it.
            progress: a JSON object, in place of the one before; None leaves that.

        Raises:
            LeaseLostError: stop, and write nothing more.
            InvalidError: with the field at fault.
        """
        if status is not None:
            _check_one_of(status, ACTIVE)
        checked = _check_object(progress, field="progress", limit_bytes=MAX_PROGRESS_BYTES)
        with self._database.write() as connection:
            return claims.update_job(connection, lease, status=status, progress=checked, now=self._clock())

    def append_events(self, lease: JobLease, events: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Add to the job's events, in order: all of them or none.

        Args:
            events: kinds and JSON objects. The kind `status` is the store's own: it is written with each
                change of status.

        Raises:
            LeaseLostError: stop, and write nothing more.
            InvalidError: with the field at fault.
        """
        checked = job_events.check_events(events)
        with self._database.write() as connection:
            row = claims.held(connection, lease)
            job_events.add_events(connection, row.number, checked, self._clock())

    def finish_job(
        self,
        lease: JobLease,
        status: Literal["succeeded", "failed", "cancelled"],
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> TuningJob:
        """The job is over; the lease ends. Once: a second time, the lease is lost.

        Raises:
            LeaseLostError: write nothing more; look at the job to see how it is.
            InvalidError: with the field at fault.
        """
        _check_one_of(status, OVER)
        checked_result = _check_object(result, field="result", limit_bytes=MAX_RESULT_BYTES)
        checked_error = _check_object(error, field="error", limit_bytes=MAX_ERROR_BYTES)
        with self._database.write() as connection:
            return claims.finish_job(
                connection,
                lease,
                status,
                result=checked_result or {},
                error=checked_error,
                now=self._clock(),
            )


def _check_seconds(seconds: float) -> float:
    if checks.is_finite(seconds) and seconds > 0:
        return float(seconds)
    raise InvalidError(
        f"A lease of {shown(seconds)} seconds is none; it is a number above 0.", field="lease_seconds"
    )


def _check_one_of(status: str, known: tuple[JobStatus, ...]) -> None:
    if status not in known:
        raise InvalidError(
            f"The status {shown(status)} is not for here; it is one of {', '.join(known)}.", field="status"
        )


def _check_object(value: Mapping[str, Any] | None, *, field: str, limit_bytes: int) -> dict[str, Any] | None:
    return None if value is None else checks.check_object(value, field=field, limit_bytes=limit_bytes)
