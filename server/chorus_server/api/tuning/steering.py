"""What routes do alike with jobs of every kind: find, stop, resume and follow them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from fastapi import Request, Response

from chorus_server.api.http.context import request_id_of
from chorus_server.api.inference.answers import list_response
from chorus_server.api.jobs.seeing import may_see
from chorus_server.api.schemas.common import MAX_UNFINISHED_JOBS
from chorus_server.api.services import Services, acting_store, services_of
from chorus_server.api.tuning.jobs import steps_of
from chorus_server.api.tuning.records import event_json
from chorus_server.api.tuning.stream import JobEventStream
from chorus_server.tenancy.principal import Principal
from prompts_store.jobs.records import Job, JobKind
from prompts_store.jobs.rows import unknown_job


async def job_of(services: Services, principal: Principal, job: str, kind: JobKind | None = None) -> Job:
    """A job of the caller's tenant. One that the caller's key may not see is answered as one that is not
    there.

    Args:
        kind: that it must have; None for any.

    Raises:
        NotFoundError: of the store, `unknown_job`.
    """
    found = await services.library.read(services.library.store.get_job, principal.tenant, job, kind=kind)
    if not may_see(principal, found):
        raise unknown_job(job, kind)
    return found


async def stopped(
    request: Request, principal: Principal, job: str, kind: JobKind | None, stop: Callable[..., Job]
) -> Job:
    """A job after a call of the store that cancels or pauses it. Raises as `job_of` and the store do."""
    services = services_of(request)
    await job_of(services, principal, job, kind)
    return await services.library.save(stop, principal.tenant, job, kind=kind, by=principal.name)


async def resumed(request: Request, principal: Principal, job: str, kind: JobKind | None) -> Job:
    """A job that was queued again. Raises as `job_of` and the store do."""
    services = services_of(request)
    known = await job_of(services, principal, job, kind)
    found = await services.library.save(
        acting_store(request).resume_job,
        principal.tenant,
        job,
        kind=kind,
        by=principal.name,
        max_unfinished=MAX_UNFINISHED_JOBS,
        training_steps=await services.text.run(steps_of, known) if known.kind == "tuning" else 0,
    )
    services.wake_jobs()
    return found


async def followed(
    request: Request,
    principal: Principal,
    job: str,
    kind: JobKind | None,
    after: int | None,
    last_event_id: int | None,
    limit: int | None,
) -> Response:
    """A job's events: a list of so many, or a stream if `limit` is None.

    Args:
        after, last_event_id: number of the last event that the caller has; the first that is given counts.

    Raises as `job_of`.
    """
    services = services_of(request)
    record = await job_of(services, principal, job, kind)
    position = after if after is not None else last_event_id or 0
    library, tenant = services.library, record.tenant
    if limit is not None:
        found = await library.read(
            library.store.job_events, tenant, record.id, kind=record.kind, after=position, limit=limit
        )
        return await list_response("events", map(event_json, found))
    with ExitStack() as stack:
        stack.enter_context(services.feeds.place(tenant))
        # From here the stream owns the follower's place and gives it back when it ends, however it ends.
        return JobEventStream(services.feeds, record, position, request_id_of(request), stack.pop_all())
