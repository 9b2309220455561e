"""`/v1/batches`: start, list, show, follow, cancel, resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.batch.queueing import queue_batch
from chorus_server.api.batch.records import batch_json
from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import Once
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Cursor, Limit
from chorus_server.api.http.responses import CREATION_ERRORS, READ_ERRORS, WRITE_ERRORS
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
from chorus_server.api.schemas.batches import BatchAnswer, BatchPage
from chorus_server.api.schemas.documents.batch import BatchDocument
from chorus_server.api.schemas.tuning import JobEventList
from chorus_server.api.services import acting_store, services_of
from chorus_server.api.tuning.steering import followed, job_of, resumed, stopped
from prompts_store.jobs.records import JobStatus

router = APIRouter(route_class=ChorusRoute, tags=["batches"])


@router.post("/v1/batches", status_code=201, response_model=BatchAnswer, responses=CREATION_ERRORS)
async def start_batch(request: Request, principal: MayTune, body: BatchDocument, once: Once) -> Response:
    """Queue a batch. Its lines are checked when it runs, all before the first is asked."""
    services = services_of(request)
    job = await once.made(
        lambda: queue_batch(services, acting_store(request), principal, body),
        lambda made: job_of(services, principal, made, "batch"),
    )
    services.wake_jobs()
    return json_response(batch_json(job), 201)


@router.get("/v1/batches", response_model=BatchPage, responses=READ_ERRORS)
async def list_batches(
    request: Request,
    principal: MayRead,
    status: Annotated[JobStatus | None, Query(description="Only batches with this status.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The tenant's batches, newest first."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_jobs, principal.tenant, "batch", status=status, limit=limit, cursor=cursor
    )
    jobs = (batch_json(job) for job in page.items if may_see(principal, job))
    return await list_response("batches", jobs, after={"next_cursor": page.next_cursor})


@router.get("/v1/batches/{batch}", response_model=BatchAnswer, responses=READ_ERRORS)
async def show_batch(request: Request, principal: MayRead, batch: JobId) -> Response:
    """One batch."""
    found = await job_of(services_of(request), principal, batch, "batch")
    return json_response(batch_json(found))


@router.get("/v1/batches/{batch}/events", response_model=JobEventList, responses=EVENT_RESPONSES)
async def batch_events(
    request: Request,
    principal: MayRead,
    batch: JobId,
    after: LastEventNumber = None,
    follow: Follow = True,
    limit: MostEvents = 500,
    last_event_id: LastEventId = None,
) -> Response:
    """A batch's past events in order and, with `follow`, those to come. The last event is `done`, once it is
    over."""
    return await followed(request, principal, batch, "batch", after, last_event_id, None if follow else limit)


@router.post("/v1/batches/{batch}/cancel", response_model=BatchAnswer, responses=WRITE_ERRORS)
async def cancel_batch(request: Request, principal: MayTune, batch: JobId) -> Response:
    """Cancel a batch: at once while it is queued, else as soon as whoever runs it sees the request."""
    found = await stopped(request, principal, batch, "batch", acting_store(request).cancel_job)
    return json_response(batch_json(found))


@router.post("/v1/batches/{batch}/resume", response_model=BatchAnswer, responses=WRITE_ERRORS)
async def resume_batch(request: Request, principal: MayTune, batch: JobId) -> Response:
    """Queue a batch again that failed or was cancelled. It goes on after its last answered line."""
    return json_response(batch_json(await resumed(request, principal, batch, "batch")))
