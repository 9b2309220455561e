"""`/v1/evaluations`: start, list, show, follow, cancel, resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import Once
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.evaluation.queueing import queue_evaluation
from chorus_server.api.evaluation.records import evaluation_json, evaluation_summary
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
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument
from chorus_server.api.schemas.evaluations import EvaluationAnswer, EvaluationPage
from chorus_server.api.schemas.tuning import JobEventList
from chorus_server.api.services import acting_store, services_of
from chorus_server.api.tuning.steering import followed, job_of, resumed, stopped
from prompts_store.jobs.records import JobStatus

router = APIRouter(route_class=ChorusRoute, tags=["evaluations"])


@router.post("/v1/evaluations", status_code=201, response_model=EvaluationAnswer, responses=CREATION_ERRORS)
async def start_evaluation(
    request: Request, principal: MayTune, body: EvaluationDocument, once: Once
) -> Response:
    """Queue an evaluation. The document is checked first; the file's rows are checked when it runs."""
    services = services_of(request)
    job = await once.made(
        lambda: queue_evaluation(services, acting_store(request), principal, body),
        lambda made: job_of(services, principal, made, "evaluation"),
    )
    services.wake_jobs()
    return json_response(evaluation_json(job), 201)


@router.get("/v1/evaluations", response_model=EvaluationPage, responses=READ_ERRORS)
async def list_evaluations(
    request: Request,
    principal: MayRead,
    status: Annotated[JobStatus | None, Query(description="Only evaluations with this status.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The tenant's evaluations, newest first."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_jobs, principal.tenant, "evaluation", status=status, limit=limit, cursor=cursor
    )
    jobs = (evaluation_summary(job) for job in page.items if may_see(principal, job))
    return await list_response("evaluations", jobs, after={"next_cursor": page.next_cursor})


@router.get("/v1/evaluations/{evaluation}", response_model=EvaluationAnswer, responses=READ_ERRORS)
async def show_evaluation(request: Request, principal: MayRead, evaluation: JobId) -> Response:
    """One evaluation."""
    found = await job_of(services_of(request), principal, evaluation, "evaluation")
    return json_response(evaluation_json(found))


@router.get("/v1/evaluations/{evaluation}/events", response_model=JobEventList, responses=EVENT_RESPONSES)
async def evaluation_events(
    request: Request,
    principal: MayRead,
    evaluation: JobId,
    after: LastEventNumber = None,
    follow: Follow = True,
    limit: MostEvents = 500,
    last_event_id: LastEventId = None,
) -> Response:
    """An evaluation's past events in order and, with `follow`, those to come. The last event is `done`, once
    it is over."""
    return await followed(
        request, principal, evaluation, "evaluation", after, last_event_id, None if follow else limit
    )


@router.post("/v1/evaluations/{evaluation}/cancel", response_model=EvaluationAnswer, responses=WRITE_ERRORS)
async def cancel_evaluation(request: Request, principal: MayTune, evaluation: JobId) -> Response:
    """Cancel an evaluation: at once while it is queued, else as soon as whoever runs it sees the request."""
    found = await stopped(request, principal, evaluation, "evaluation", acting_store(request).cancel_job)
    return json_response(evaluation_json(found))


@router.post("/v1/evaluations/{evaluation}/resume", response_model=EvaluationAnswer, responses=WRITE_ERRORS)
async def resume_evaluation(request: Request, principal: MayTune, evaluation: JobId) -> Response:
    """Queue an evaluation again that failed or was cancelled. It goes on after its last block of rows."""
    return json_response(evaluation_json(await resumed(request, principal, evaluation, "evaluation")))
