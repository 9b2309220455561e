"""`/v1/jobs`: jobs of every kind in one shape: list, show, follow, cancel, resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Cursor, Limit
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.jobs.seeing import may_see
from chorus_server.api.routes.tuning_events import (
    EVENT_RESPONSES,
    Follow,
    LastEventId,
    LastEventNumber,
    MostEvents,
)
from chorus_server.api.routes.tuning_jobs import JobId
from chorus_server.api.schemas.jobs import AnyJobAnswer, AnyJobPage
from chorus_server.api.schemas.tuning import JobEventList
from chorus_server.api.services import acting_store, services_of
from chorus_server.api.tuning.records import any_job_json, any_job_summary
from chorus_server.api.tuning.steering import followed, job_of, resumed, stopped
from prompts_store.jobs.records import JobKind, JobStatus

router = APIRouter(route_class=ChorusRoute, tags=["jobs"])


@router.get("/v1/jobs", response_model=AnyJobPage, responses=READ_ERRORS)
async def list_any_jobs(
    request: Request,
    principal: MayRead,
    kind: Annotated[JobKind | None, Query(description="Only jobs of this kind.")] = None,
    status: Annotated[JobStatus | None, Query(description="Only jobs with this status.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The tenant's jobs of all kinds, newest first."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_jobs, principal.tenant, kind, status=status, limit=limit, cursor=cursor
    )
    jobs = (any_job_summary(job) for job in page.items if may_see(principal, job))
    return await list_response("jobs", jobs, after={"next_cursor": page.next_cursor})


@router.get("/v1/jobs/{job}", response_model=AnyJobAnswer, responses=READ_ERRORS)
async def show_any_job(request: Request, principal: MayRead, job: JobId) -> Response:
    """One job."""
    return json_response(any_job_json(await job_of(services_of(request), principal, job)))


@router.get("/v1/jobs/{job}/events", response_model=JobEventList, responses=EVENT_RESPONSES)
async def any_job_events(
    request: Request,
    principal: MayRead,
    job: JobId,
    after: LastEventNumber = None,
    follow: Follow = True,
    limit: MostEvents = 500,
    last_event_id: LastEventId = None,
) -> Response:
    """A job's past events in order and, with `follow`, those to come. The last event is `done`, once it is
    over."""
    return await followed(request, principal, job, None, after, last_event_id, None if follow else limit)


@router.post("/v1/jobs/{job}/cancel", response_model=AnyJobAnswer, responses=WRITE_ERRORS)
async def cancel_any_job(request: Request, principal: MayTune, job: JobId) -> Response:
    """Cancel a job: at once while it is queued, else as soon as whoever runs it sees the request."""
    found = await stopped(request, principal, job, None, acting_store(request).cancel_job)
    return json_response(any_job_json(found))


@router.post("/v1/jobs/{job}/resume", response_model=AnyJobAnswer, responses=WRITE_ERRORS)
async def resume_any_job(request: Request, principal: MayTune, job: JobId) -> Response:
    """Queue a job again that failed or was cancelled. It goes on with what it has not done yet."""
    return json_response(any_job_json(await resumed(request, principal, job, None)))
