"""`.../events`: the events of a job, as server-sent events or as a list."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from chorus_server.api.door.auth import MayRead
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.responses import READ_ERRORS
from chorus_server.api.routes.tuning_jobs import JobId
from chorus_server.api.schemas.events import job_stream
from chorus_server.api.schemas.tuning import JobEventList
from chorus_server.api.tuning.steering import followed

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
    return await followed(request, principal, job, "tuning", after, last_event_id, None if follow else limit)
