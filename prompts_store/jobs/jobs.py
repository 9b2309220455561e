"""The store's jobs, for their tenant: create, show, list, cancel, pause, resume."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from prompts_store import checks
from prompts_store.audit import chain
from prompts_store.base import StoreBase
from prompts_store.database.job_tables import files as file_table
from prompts_store.database.job_tables import job_events, job_files, jobs
from prompts_store.errors import ConflictError, InvalidError, LimitError
from prompts_store.files.data_files import find_file
from prompts_store.ids import JOB, check_cursor_id, new_id
from prompts_store.jobs import steps
from prompts_store.jobs.events import STATUS, add_events
from prompts_store.jobs.records import ACTIVE, KINDS, STATUSES, Job, JobEvent, JobKind, JobStatus
from prompts_store.jobs.rows import change_job, check_kind, close_job, find_job, job_record
from prompts_store.names import check_name
from prompts_store.pages import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    check_limit,
    decode_cursor,
    encode_cursor,
    make_page,
    newest_rows,
)
from prompts_store.records import Page
from prompts_store.tenants import creations, feed, standing, stored
from prompts_store.text import shown

MAX_SPEC_BYTES = 262_144

_CURSOR = "jobs"


class Jobs(StoreBase):
    """Jobs of every kind. A call that takes a `kind` treats a job of another kind as missing."""

    def create_job(
        self,
        tenant: str,
        kind: JobKind,
        spec: Mapping[str, Any],
        *,
        created_by: str = "",
        files: Mapping[str, str] | None = None,
        max_unfinished: int | None = None,
        training_steps: int = 0,
    ) -> Job:
        """Create a job and queue it.

        Args:
            kind: the kind of work; a process that claims jobs asks for a kind.
            spec: a JSON object that says what to do. Its `base_fingerprint` names the base model.
            files: ids of the data files that it reads, by the request field that named each, as in
                `{"data.train.file": "file-..."}`. They cannot be deleted until the job is over.
            max_unfinished: how many unfinished jobs of this kind a tenant may have that has no limit of its
                own, including this one; None means any number.
            training_steps: the most that it does, over all its prompts. They are taken out of the month's
                limit, and those that it did not do are given back at its end.

        Raises:
            InvalidError: names the field at fault.
            NotFoundError: `unknown_file`, with the field that named it.
            LimitError: `too_many_jobs`; `limit_exceeded`: the month has too few training steps left.
            MadeBefore: see `creating`. Without a key, one that failed or was cancelled is made anew.
        """
        check_name(tenant, field="tenant")
        check_kind(kind)
        steps.check_steps(training_steps)
        checked = checks.check_object(spec, field="spec", limit_bytes=MAX_SPEC_BYTES)
        base_fingerprint = checks.check_fingerprint(
            checked.get("base_fingerprint"), field="spec.base_fingerprint"
        )
        checks.check_text(created_by, field="created_by")
        with self._database.write(tenant) as connection:
            now = self._clock()
            standing.require_not_deleted(connection, tenant)
            stands = partial(_goes_on, connection, tenant)
            remember = creations.require_new(connection, tenant, now, stands=stands)
            numbers = {
                find_file(connection, tenant, file_id, field=field).number
                for field, file_id in (files or {}).items()
            }
            _require_room(connection, tenant, kind, max_unfinished)
            job_id = new_id(JOB)
            connection.execute(
                insert(jobs).values(
                    id=job_id,
                    kind=kind,
                    tenant=tenant,
                    status="queued",
                    spec=checked,
                    base_fingerprint=base_fingerprint,
                    created_at=now,
                    created_by=created_by,
                    queued_at=now,
                    progress={},
                    result={},
                    cancel_requested=False,
                    attempt=0,
                    lease_token=0,
                    last_event=0,
                )
            )
            row = find_job(connection, tenant, job_id)
            if numbers:
                rows = [{"job_number": row.number, "file_number": number} for number in sorted(numbers)]
                connection.execute(insert(job_files), rows)
            add_events(connection, row.number, [(STATUS, {"status": "queued"})], now)
            steps.reserve(connection, tenant, row.number, training_steps, now)
            feed.record(connection, "job_queued", tenant, kind, now=now)
            facts = {"kind": kind, "files": sorted((files or {}).values())}
            chain.append(connection, "job.create", tenant, job_id, now=now, after=facts)
            remember(job_id)
            return job_record(row)

    def get_job(self, tenant: str, job_id: str, *, kind: JobKind | None = None) -> Job:
        """A job. NotFoundError: `unknown_job`."""
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            return job_record(find_job(connection, tenant, job_id, kind))

    def list_jobs(
        self,
        tenant: str,
        kind: JobKind | None,
        *,
        status: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[Job]:
        """A page of a tenant's jobs of a kind, or of all kinds, newest first; with `status`, only jobs with
        that status.

        Raises:
            InvalidError: the kind, status, limit or cursor is not valid.
        """
        check_name(tenant, field="tenant")
        limit = check_limit(limit)
        before = decode_cursor(_CURSOR, cursor, check_cursor_id)
        kinds = KINDS if kind is None else (check_kind(kind),)
        query = select(jobs).where(jobs.c.tenant == tenant)
        if status is not None:
            query = query.where(jobs.c.status == check_status(status))
        with self._database.read(tenant) as connection:
            # One kind after the other, as the index has them.
            found = [
                newest_rows(connection, query.where(jobs.c.kind == each), jobs, tenant, before, limit)
                for each in kinds
            ]
        rows = heapq.merge(*found, key=attrgetter("number"), reverse=True)
        return make_page(
            list(islice(rows, limit + 1)), limit, job_record, lambda row: encode_cursor(_CURSOR, row.id)
        )

    def cancel_job(self, tenant: str, job_id: str, *, kind: JobKind | None = None, by: str = "") -> Job:
        """Cancel a job: at once if no process runs it, else `cancel_requested` tells the one that does.

        Raises:
            NotFoundError: `unknown_job`.
            ConflictError: `job_over`.
        """
        check_name(tenant, field="tenant")
        checks.check_text(by, field="by")
        with self._database.write(tenant) as connection:
            now = self._clock()
            row = _unfinished(connection, tenant, job_id, kind, "cancel")
            if row.status in ACTIVE and row.lease_expires_at > now:
                if not row.cancel_requested:
                    change_job(connection, row.number, {"cancel_requested": True})
                    data = {"status": row.status, "cancel_requested": True, "by": by}
                    add_events(connection, row.number, [(STATUS, data)], now)
                    asked = {"cancel_requested": True}
                    chain.append(connection, "job.cancel", tenant, job_id, now=now, after=asked)
                return job_record(find_job(connection, tenant, job_id))
            # Also if its runner is overdue: if that one wakes up, its lease is gone.
            close_job(connection, row.number, "cancelled", now, data={"by": by})
            before, after = {"status": row.status}, {"status": "cancelled"}
            chain.append(connection, "job.cancel", tenant, job_id, now=now, before=before, after=after)
            return job_record(find_job(connection, tenant, job_id))

    def pause_job(self, tenant: str, job_id: str, *, kind: JobKind | None = None, by: str = "") -> Job:
        """Let a job wait until it is resumed. The process that runs it writes a checkpoint and gives it back.

        It stays unfinished: it keeps its files, its place in the queue and its part of the month.

        Raises:
            NotFoundError: `unknown_job`.
            ConflictError: `job_over`.
        """
        check_name(tenant, field="tenant")
        checks.check_text(by, field="by")
        with self._database.write(tenant) as connection:
            now = self._clock()
            row = _unfinished(connection, tenant, job_id, kind, "pause")
            if row.paused:
                return job_record(row)
            values: dict[str, Any] = {"paused": True}
            if row.status in ACTIVE and row.lease_expires_at <= now:  # its runner is overdue
                values |= {"status": "queued", "lease_owner": None, "lease_expires_at": None}
            change_job(connection, row.number, values)
            data = {"status": values.get("status", row.status), "paused": True, "by": by}
            add_events(connection, row.number, [(STATUS, data)], now)
            chain.append(connection, "job.pause", tenant, job_id, now=now, after={"paused": True})
            return job_record(find_job(connection, tenant, job_id))

    def resume_job(
        self,
        tenant: str,
        job_id: str,
        *,
        kind: JobKind | None = None,
        by: str = "",
        max_unfinished: int | None = None,
        training_steps: int = 0,
    ) -> Job:
        """Queue a job again that failed or was cancelled, or end a pause. It goes on from its checkpoint.

        Args:
            max_unfinished, training_steps: as in `create_job`; what it has done before counts once.

        Raises:
            NotFoundError: `unknown_job`.
            ConflictError: `job_not_stopped`; `file_deleted`: one of its files was deleted.
            LimitError: as in `create_job`.
        """
        steps.check_steps(training_steps)
        check_name(tenant, field="tenant")
        checks.check_text(by, field="by")
        with self._database.write(tenant) as connection:
            now = self._clock()
            row = find_job(connection, tenant, job_id, kind)
            standing.require_not_deleted(connection, tenant)
            if row.paused:
                change_job(connection, row.number, {"paused": False})
                data = {"status": row.status, "paused": False, "by": by}
                add_events(connection, row.number, [(STATUS, data)], now)
                feed.record(connection, "job_queued", tenant, row.kind, now=now)
                chain.append(connection, "job.resume", tenant, job_id, now=now, after={"paused": False})
                return job_record(find_job(connection, tenant, job_id))
            if row.status not in ("failed", "cancelled"):
                raise ConflictError(
                    f"The job is {row.status}; only one that failed, was cancelled or is paused can be "
                    "resumed.",
                    field="job",
                    code="job_not_stopped",
                )
            gone = (
                select(file_table.c.id)
                .join(job_files, job_files.c.file_number == file_table.c.number)
                .where(job_files.c.job_number == row.number, file_table.c.deleted_at.is_not(None))
                .order_by(file_table.c.number)
                .limit(1)
            )
            file_id = connection.execute(gone).scalar()
            if file_id is not None:
                raise ConflictError(
                    f"The job reads {file_id}, which was deleted; upload it again and start a new job.",
                    field="job",
                    code="file_deleted",
                )
            _require_room(connection, tenant, row.kind, max_unfinished)
            values = {
                "status": "queued",
                "queued_at": now,
                "finished_at": None,
                "error": None,
                "result": {},
                "cancel_requested": False,
            }
            change_job(connection, row.number, values)
            add_events(connection, row.number, [(STATUS, {"status": "queued", "by": by})], now)
            steps.reserve(connection, tenant, row.number, training_steps, now)
            feed.record(connection, "job_queued", tenant, row.kind, now=now)
            before, after = {"status": row.status}, {"status": "queued"}
            chain.append(connection, "job.resume", tenant, job_id, now=now, before=before, after=after)
            return job_record(find_job(connection, tenant, job_id))

    def job_events(
        self,
        tenant: str,
        job_id: str,
        *,
        kind: JobKind | None = None,
        after: int = 0,
        limit: int = MAX_LIMIT,
        kinds: Collection[str] | None = None,
        newest_first: bool = False,
    ) -> list[JobEvent]:
        """A job's events after a number, in order, at most `limit`; with `newest_first` those before it, from
        the last (`after` is 0) to the first. With `kinds`, only events of these.

        Each change of status is an event of kind `status` with `{"status": ...}`, so the last one of a
        finished job says how it ended. If a job is resumed, the numbers continue.

        Raises:
            NotFoundError: `unknown_job`.
            InvalidError: the limit or `after` is not valid.
        """
        check_name(tenant, field="tenant")
        with self._database.read(tenant) as connection:
            job = find_job(connection, tenant, job_id, kind)
            if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < 2**31:
                raise InvalidError(
                    f"{shown(after)} is not the number of an event; send the last one that you have, or 0.",
                    field="after",
                )
            seq = job_events.c.seq
            query = select(job_events).where(job_events.c.job_number == job.number)
            if kinds is not None:
                query = query.where(job_events.c.kind.in_(list(kinds)))
            if not newest_first:
                query = query.where(seq > after).order_by(seq)
            elif after:
                query = query.where(seq < after).order_by(seq.desc())
            else:
                query = query.order_by(seq.desc())
            query = query.limit(check_limit(limit))
            return [JobEvent(row.seq, row.at, row.kind, row.data) for row in connection.execute(query)]


def check_status(status: object) -> JobStatus:
    """Return the status if it is one.

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


def _goes_on(connection: Connection, tenant: str, job_id: str) -> bool:
    """Whether a job neither failed nor was cancelled, nor will be."""
    row = find_job(connection, tenant, job_id)
    return row.status not in ("failed", "cancelled") and not row.cancel_requested


def _require_room(connection: Connection, tenant: str, kind: JobKind, most: int | None) -> None:
    own = stored.limits_of(connection, tenant).stored
    if own is not None and own.unfinished_jobs is not None:
        unfinished = stored.unfinished_jobs(connection, tenant)
        if unfinished >= own.unfinished_jobs:
            limit = own.unfinished_jobs
            raise stored.refusal("unfinished_jobs", limit, unfinished, 1, code="too_many_jobs")
        return
    if most is None:
        return
    query = select(func.count()).where(
        jobs.c.tenant == tenant, jobs.c.kind == kind, jobs.c.finished_at.is_(None)
    )
    number = connection.execute(query).scalar_one()
    if number >= most:
        raise LimitError(
            f"{number} {kind} jobs are unfinished, and {most} is the limit; wait for one to end, or cancel "
            "one.",
            code="too_many_jobs",
        )


def _unfinished(
    connection: Connection, tenant: str, job_id: str, kind: JobKind | None, verb: str
) -> Row[Any]:
    """The row of a job that is not over. Raises as `find_job` does; ConflictError: `job_over`."""
    row = find_job(connection, tenant, job_id, kind)
    if row.finished_at is None:
        return row
    ended = "was cancelled" if row.status == "cancelled" else row.status
    raise ConflictError(
        f"The job is over: it {ended}. There is nothing to {verb}.", field="job", code="job_over"
    )
