"""`/v1/tuning/jobs`: make, list, show, cancel, pause, resume."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import Once
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Cursor, Limit
from chorus_server.api.http.responses import CREATION_ERRORS, READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.jobs.seeing import may_see
from chorus_server.api.schemas.tuning import JobAnswer, JobPage
from chorus_server.api.services import Services, acting_store, services_of
from chorus_server.api.tuning.jobs import queue_job
from chorus_server.api.tuning.records import job_json, summary_json
from chorus_server.api.tuning.steering import job_of, resumed, stopped
from chorus_server.tuning.document.job import JobDocument
from prompts_store.jobs.records import Job, JobStatus

router = APIRouter(route_class=ChorusRoute, tags=["tuning"])

JobId = Annotated[str, Path(max_length=256, description="Id of a job in the key's tenant.")]


@router.post("/v1/tuning/jobs", status_code=201, response_model=JobAnswer, responses=CREATION_ERRORS)
async def start_job(request: Request, principal: MayTune, body: JobDocument, once: Once) -> Response:
    """Queue a job. The whole document is checked first; rows of data are checked when the job is prepared."""
    services = services_of(request)
    job = await once.made(
        lambda: queue_job(services, acting_store(request), principal, body),
        lambda made: job_of(services, principal, made, "tuning"),
    )
    services.wake_jobs()
    return await _queued(services, job, 201)


@router.get("/v1/tuning/jobs", response_model=JobPage, responses=READ_ERRORS)
async def list_jobs(
    request: Request,
    principal: MayRead,
    status: Annotated[JobStatus | None, Query(description="Only jobs with this status.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The tenant's jobs, newest first."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_jobs, principal.tenant, "tuning", status=status, limit=limit, cursor=cursor
    )
    jobs = (summary_json(job) for job in page.items if may_see(principal, job))
    return await list_response("jobs", jobs, after={"next_cursor": page.next_cursor})


@router.get("/v1/tuning/jobs/{job}", response_model=JobAnswer, responses=READ_ERRORS)
async def show_job(request: Request, principal: MayRead, job: JobId) -> Response:
    """One job."""
    return json_response(job_json(await job_of(services_of(request), principal, job, "tuning")))


@router.post("/v1/tuning/jobs/{job}/cancel", response_model=JobAnswer, responses=WRITE_ERRORS)
async def cancel_job(request: Request, principal: MayTune, job: JobId) -> Response:
    """Cancel a job: at once while it is queued, else as soon as whoever runs it sees the request."""
    found = await stopped(request, principal, job, "tuning", acting_store(request).cancel_job)
    return json_response(job_json(found))


@router.post("/v1/tuning/jobs/{job}/pause", response_model=JobAnswer, responses=WRITE_ERRORS)
async def pause_job(request: Request, principal: MayTune, job: JobId) -> Response:
    """Let a job wait, from its next checkpoint on, until it is resumed. Nothing that it did is lost."""
    found = await stopped(request, principal, job, "tuning", acting_store(request).pause_job)
    return json_response(job_json(found))


@router.post("/v1/tuning/jobs/{job}/resume", response_model=JobAnswer, responses=WRITE_ERRORS)
async def resume_job(request: Request, principal: MayTune, job: JobId) -> Response:
    """Queue a job again that failed or was cancelled, or end a pause. It goes on from its last checkpoint."""
    services = services_of(request)
    return await _queued(services, await resumed(request, principal, job, "tuning"))


async def _queued(services: Services, job: Job, status: int = 200) -> Response:
    """A job that was queued, with a header once its tenant's month is beyond a soft limit."""
    answer = json_response(job_json(job), status)
    passed = await services.library.read(services.library.store.soft_limit, job.tenant)
    if passed is not None:
        answer.headers["Chorus-Budget-Warning"] = (
            f'"tenant-training-steps-month";used={passed.used};soft={passed.most}'
        )
    return answer
