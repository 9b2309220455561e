"""`/v1/tasks/{task}/versions/{n}/calibrations`: what probabilities of a version's labels mean."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from chorus_server.api.calibration.queueing import calibration_job_of, queue_calibration
from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import Once
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import (
    Cursor,
    Limit,
    TaskName,
    TenantName,
    VersionInPath,
    owner_of_task,
)
from chorus_server.api.http.responses import CREATION_ERRORS, READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.library.shared import task_to_read
from chorus_server.api.records import calibration_job_json, calibration_json
from chorus_server.api.schemas.calibrations import CalibrationAnswer, CalibrationJobAnswer, CalibrationPage
from chorus_server.api.schemas.documents.calibration import CalibrationDocument
from chorus_server.api.services import acting_store, services_of

router = APIRouter(route_class=ChorusRoute, tags=["versions"])

JobOfVersion = Annotated[str, Path(max_length=256, description="Id of a job that calibrates a version.")]
CalibrationInPath = Annotated[int, Path(ge=1, le=2_147_483_647, description="A calibration's number.")]


@router.get(
    "/v1/tasks/{task}/versions/{n}/calibrations", response_model=CalibrationPage, responses=READ_ERRORS
)
async def list_calibrations(
    request: Request,
    principal: MayRead,
    task: TaskName,
    n: VersionInPath,
    limit: Limit = 50,
    cursor: Cursor = None,
    tenant: TenantName = None,
) -> Response:
    """A version's calibrations, newest first. The first in the list serves."""
    library = services_of(request).library
    owner = await task_to_read(library, principal, tenant, task)
    page = await library.read(library.store.list_calibrations, owner, task, n, limit=limit, cursor=cursor)
    made = (calibration_json(f"{owner}/{task}", n, each) for each in page.items)
    return await list_response("calibrations", made, after={"next_cursor": page.next_cursor})


@router.get(
    "/v1/tasks/{task}/versions/{n}/calibrations/{calibration}",
    response_model=CalibrationAnswer,
    responses=READ_ERRORS,
)
async def show_calibration(
    request: Request,
    principal: MayRead,
    task: TaskName,
    n: VersionInPath,
    calibration: CalibrationInPath,
    tenant: TenantName = None,
) -> Response:
    """One calibration."""
    library = services_of(request).library
    owner = await task_to_read(library, principal, tenant, task)
    made = await library.read(library.store.get_calibration, owner, task, n, calibration)
    return json_response(calibration_json(f"{owner}/{task}", n, made))


@router.post(
    "/v1/tasks/{task}/versions/{n}/calibrations",
    status_code=201,
    response_model=CalibrationJobAnswer,
    responses=CREATION_ERRORS,
)
async def start_calibration(
    request: Request,
    principal: MayTune,
    task: TaskName,
    n: VersionInPath,
    body: CalibrationDocument,
    once: Once,
    tenant: TenantName = None,
) -> Response:
    """Queue a job that calibrates the version on a data file. The file's rows are checked when it runs."""
    services = services_of(request)
    owner_of_task(principal, tenant, task)
    job = await once.made(
        lambda: queue_calibration(services, acting_store(request), principal, task, n, body),
        lambda made: calibration_job_of(services, principal, task, made),
    )
    services.wake_jobs()
    return json_response(calibration_job_json(job), 201)


@router.get(
    "/v1/tasks/{task}/calibration_jobs/{calibration_job}",
    response_model=CalibrationJobAnswer,
    responses=READ_ERRORS,
)
async def show_calibration_job(
    request: Request,
    principal: MayRead,
    task: TaskName,
    calibration_job: JobOfVersion,
    tenant: TenantName = None,
) -> Response:
    """One job that calibrates a version of the task."""
    owner_of_task(principal, tenant, task)
    return json_response(
        calibration_job_json(await calibration_job_of(services_of(request), principal, task, calibration_job))
    )


@router.post(
    "/v1/tasks/{task}/calibration_jobs/{calibration_job}/cancel",
    response_model=CalibrationJobAnswer,
    responses=WRITE_ERRORS,
)
async def cancel_calibration_job(
    request: Request,
    principal: MayTune,
    task: TaskName,
    calibration_job: JobOfVersion,
    tenant: TenantName = None,
) -> Response:
    """Cancel a job: at once while it is queued, else as soon as whoever runs it sees the request."""
    services = services_of(request)
    owner_of_task(principal, tenant, task)
    await calibration_job_of(services, principal, task, calibration_job)
    found = await services.library.save(
        acting_store(request).cancel_job,
        principal.tenant,
        calibration_job,
        kind="calibration",
        by=principal.name,
    )
    return json_response(calibration_job_json(found))
