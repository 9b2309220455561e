"""`.../events`: the events of a job, as server-sent events or as a list."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from chorus_server.api.door.auth import MayRead
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.context import request_id_of
from chorus_server.api.http.responses import READ_ERRORS
from chorus_server.api.inference.answers import list_response
from chorus_server.api.routes.tuning_jobs import JobId
from chorus_server.api.schemas.events import job_stream
from chorus_server.api.schemas.tuning import JobEventList
from chorus_server.api.services import services_of
from chorus_server.api.tuning.jobs import job_of
from chorus_server.api.tuning.records import event_json
from chorus_server.api.tuning.stream import JobEventStream
from prompts_store.jobs.records import Job

router = APIRouter(route_class=ChorusRoute, tags=["tuning"])

_STREAM = {"content": {"text/event-stream": job_stream()}}
_MOST = 2**31 - 1
LastEventNumber = Annotated[
    int | None, Query(ge=0, le=_MOST, description="Number of the last event that the caller has.")
]
Follow = Annotated[bool, Query(description="Keep the connection open and send later events too.")]
MostEvents = Annotated[int, Query(ge=1, le=500, description="Most events in a list.")]
LastEventId = Annotated[
    int | None, Header(ge=0, le=_MOST, description="Browsers send this when they reconnect.")
]
EVENT_RESPONSES = {**READ_ERRORS, 200: _STREAM}


@router.get("/v1/tuning/jobs/{job}/events", response_model=JobEventList, responses=EVENT_RESPONSES)
async def job_events(
    request: Request,
    principal: MayRead,
    job: JobId,
    after: LastEventNumber = None,
    follow: Follow = True,
    limit: MostEvents = 500,
    last_event_id: LastEventId = None,
) -> Response:
    """A job's past events in order and, with `follow`, those to come. The last event is `done`, once the job
    is over.
    """
    record = await job_of(services_of(request), principal, job)
    position = after if after is not None else last_event_id or 0
    return await events_response(request, record, position, limit if not follow else None)


async def events_response(request: Request, job: Job, after: int, limit: int | None) -> Response:
    """The events of a job of any kind after a number: a list of so many, or a stream if `limit` is None."""
    services = services_of(request)
    library, tenant = services.library, job.tenant
    if limit is not None:
        found = await library.read(
            library.store.job_events, tenant, job.id, kind=job.kind, after=after, limit=limit
        )
        return await list_response("events", map(event_json, found))
    with ExitStack() as stack:
        stack.enter_context(services.feeds.place(tenant))
        # From here the stream owns the follower's place and gives it back when it ends, however it ends.
        return JobEventStream(services.feeds, job, after, request_id_of(request), stack.pop_all())
