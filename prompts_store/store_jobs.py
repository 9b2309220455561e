"""The store's tuning jobs, as their tenant sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prompts_store import checks, job_events, jobs
from prompts_store.names import check_name
from prompts_store.pages import DEFAULT_LIMIT, MAX_LIMIT
from prompts_store.records import Page
from prompts_store.store_base import StoreBase
from prompts_store.tuning_records import JobEvent, TuningJob

MAX_SPEC_BYTES = 262_144


class TuningJobs(StoreBase):
    """Jobs that make prompts from data files."""

    def create_job(
        self,
        tenant: str,
        spec: Mapping[str, Any],
        *,
        created_by: str = "",
        files: Mapping[str, str] | None = None,
        max_unfinished: int | None = None,
    ) -> TuningJob:
        """Put a job into the queue.

        Args:
            spec: a JSON object that says what to do; `base_fingerprint` in it says on which base model.
            files: ids of the data files that it reads, by the field of the request that named each, as in
                `{"data.train.file": "file-..."}`. They cannot be deleted until the job is over.
            max_unfinished: how many unfinished jobs the tenant may have, this one included; None for any.

        Raises:
            InvalidError: with the field at fault.
            NotFoundError: `unknown_file`, with the field that named it.
            LimitError: `too_many_jobs`.
        """
        check_name(tenant, field="tenant")
        checked = checks.check_object(spec, field="spec", limit_bytes=MAX_SPEC_BYTES)
        draft = jobs.JobDraft(
            tenant=tenant,
            spec=checked,
            base_fingerprint=checks.check_fingerprint(
                checked.get("base_fingerprint"), field="spec.base_fingerprint"
            ),
            created_by=checks.check_text(created_by, field="created_by"),
            files=dict(files or {}),
            max_unfinished=max_unfinished,
        )
        with self._database.write() as connection:
            return jobs.create_job(connection, draft, self._clock())

    def get_job(self, tenant: str, job_id: str) -> TuningJob:
        """A job. NotFoundError: `unknown_job`."""
        check_name(tenant, field="tenant")
        with self._database.read() as connection:
            return jobs.job_record(jobs.find_job(connection, tenant, job_id))

    def list_jobs(
        self,
        tenant: str,
        *,
        status: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[TuningJob]:
        """A page of a tenant's jobs, newest first; `status` keeps those that have it.

        Raises:
            InvalidError: a bad status, limit or cursor.
        """
        check_name(tenant, field="tenant")
        with self._database.read() as connection:
            return jobs.list_jobs(connection, tenant, status=status, limit=limit, cursor=cursor)

    def cancel_job(self, tenant: str, job_id: str, *, by: str = "") -> TuningJob:
        """Cancel a job: at once where nobody runs it, else `cancel_requested` tells whoever does.

        Raises:
            NotFoundError: `unknown_job`.
            ConflictError: `job_over`.
        """
        check_name(tenant, field="tenant")
        checks.check_text(by, field="by")
        with self._database.write() as connection:
            return jobs.cancel_job(connection, tenant, job_id, by=by, now=self._clock())

    def resume_job(
        self, tenant: str, job_id: str, *, by: str = "", max_unfinished: int | None = None
    ) -> TuningJob:
        """Put a job that failed or was cancelled into the queue again; it goes on from its checkpoint.

        Raises:
            NotFoundError: `unknown_job`.
            ConflictError: `job_not_stopped`; `file_deleted`: a file of it is gone.
            LimitError: `too_many_jobs`.
        """
        check_name(tenant, field="tenant")
        checks.check_text(by, field="by")
        with self._database.write() as connection:
            return jobs.resume_job(
                connection, tenant, job_id, by=by, max_unfinished=max_unfinished, now=self._clock()
            )

    def job_events(
        self, tenant: str, job_id: str, *, after: int = 0, limit: int = MAX_LIMIT
    ) -> list[JobEvent]:
        """A job's events after a number, in order, at most `limit` of them.

        Each change of status is an event of kind `status` with `{"status": ...}`; the last one of a job that
        is over says how it ended. A job that is resumed goes on with the numbers.

        Raises:
            NotFoundError: `unknown_job`.
            InvalidError: a bad limit, or `after`.
        """
        check_name(tenant, field="tenant")
        with self._database.read() as connection:
            number = jobs.find_job(connection, tenant, job_id).number
            return job_events.list_events(connection, number, after=after, limit=limit)
