"""`/v1/fine_tuning/jobs`: tuning jobs in OpenAI's fields."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import OnceAMinute
from chorus_server.api.inference.answers import json_response
from chorus_server.api.jobs.seeing import file_of, may_see
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute, openai_errors
from chorus_server.api.openai.fine_tuning import TrainingFile, document_of, look_at, param_of
from chorus_server.api.openai.fine_tuning_shapes import (
    CHECKPOINT_KINDS,
    checkpoint_object,
    event_object,
    is_checkpoint,
    job_object,
    seq_of,
)
from chorus_server.api.openai.lists import (
    After,
    MostItems,
    cursor_after,
    items_after,
    object_list,
    page_limit,
)
from chorus_server.api.routes.tuning_jobs import JobId
from chorus_server.api.schemas.openai.fine_tuning import (
    FineTuningBody,
    FineTuningCheckpoints,
    FineTuningEvents,
    FineTuningJob,
    FineTuningJobs,
)
from chorus_server.api.services import Services, acting_store, services_of
from chorus_server.api.tuning.jobs import queue_job
from chorus_server.api.tuning.steering import job_of, resumed, stopped
from chorus_server.errors import ChorusError, InvalidInputError
from chorus_server.tenancy.principal import Principal
from prompts_store.errors import StoreError
from prompts_store.files.records import DataFile
from prompts_store.jobs.records import Job, JobEvent
from prompts_store.records import Page
from prompts_store.store import PromptStore

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])

_PATH = "/v1/fine_tuning/jobs"
_CHANGE_ERRORS = openai_errors(409)


@router.post(_PATH, response_model=FineTuningJob, responses=openai_errors(409, 422))
async def start_fine_tuning(
    request: Request, principal: MayTune, body: FineTuningBody, once: OnceAMinute
) -> Response:
    """Queue a job. Its files are looked at now, and checked row by row when the job is prepared."""
    services = services_of(request)
    job = await once.made(
        lambda: _queued(services, acting_store(request), principal, body),
        lambda made: job_of(services, principal, made, "tuning"),
    )
    services.wake_jobs()
    return _answer(services, job)


@router.get(_PATH, response_model=FineTuningJobs, responses=OPENAI_ERRORS)
async def list_fine_tuning(
    request: Request, principal: MayRead, after: After = None, limit: MostItems = 20
) -> Response:
    """The tenant's tuning jobs, newest first."""
    services = services_of(request)
    library = services.library
    read = partial(library.read, library.store.list_jobs, principal.tenant, "tuning")
    cursor, may = cursor_after("jobs", after), partial(may_see, principal)
    jobs, more = await items_after(read, cursor, page_limit(limit), may)
    base = services.base().name
    return await object_list(jobs, lambda job: job_object(job, base), more)


@router.get(_PATH + "/{job}", response_model=FineTuningJob, responses=OPENAI_ERRORS)
async def show_fine_tuning(request: Request, principal: MayRead, job: JobId) -> Response:
    """One job."""
    services = services_of(request)
    return _answer(services, await job_of(services, principal, job, "tuning"))


@router.post(_PATH + "/{job}/cancel", response_model=FineTuningJob, responses=_CHANGE_ERRORS)
async def cancel_fine_tuning(request: Request, principal: MayTune, job: JobId) -> Response:
    """Cancel a job: at once while it waits, else as soon as whoever runs it sees the request."""
    found = await stopped(request, principal, job, "tuning", acting_store(request).cancel_job)
    return _answer(services_of(request), found)


@router.post(_PATH + "/{job}/pause", response_model=FineTuningJob, responses=_CHANGE_ERRORS)
async def pause_fine_tuning(request: Request, principal: MayTune, job: JobId) -> Response:
    """Let a job wait, from its next checkpoint on, until it is resumed: its status is `queued`."""
    found = await stopped(request, principal, job, "tuning", acting_store(request).pause_job)
    return _answer(services_of(request), found)


@router.post(_PATH + "/{job}/resume", response_model=FineTuningJob, responses=_CHANGE_ERRORS)
async def resume_fine_tuning(request: Request, principal: MayTune, job: JobId) -> Response:
    """Let a job go on that is paused, failed or was cancelled."""
    return _answer(services_of(request), await resumed(request, principal, job, "tuning"))


@router.get(_PATH + "/{job}/events", response_model=FineTuningEvents, responses=OPENAI_ERRORS)
async def fine_tuning_events(
    request: Request, principal: MayRead, job: JobId, after: After = None, limit: MostItems = 20
) -> Response:
    """What happened in a job, newest first."""
    record = await job_of(services_of(request), principal, job, "tuning")
    found, more = await _events(request, record, seq_of("ftevent", record, after), limit)
    return await object_list(found, lambda event: event_object(record, event), more)


@router.get(_PATH + "/{job}/checkpoints", response_model=FineTuningCheckpoints, responses=OPENAI_ERRORS)
async def fine_tuning_checkpoints(
    request: Request, principal: MayRead, job: JobId, after: After = None, limit: MostItems = 10
) -> Response:
    """The steps after which a job was measured, newest first. The chosen one becomes the version, which alone
    can be asked."""
    record = await job_of(services_of(request), principal, job, "tuning")
    last = seq_of("ftckpt", record, after)
    found, more = await _events(
        request, record, last, limit, partial(is_checkpoint, record), kinds=CHECKPOINT_KINDS
    )
    return await object_list(found, partial(checkpoint_object, record), more)


async def _events(
    request: Request,
    job: Job,
    last: int,
    limit: int,
    keep: Callable[[JobEvent], bool] = lambda _: True,
    **which: Any,
) -> tuple[list[JobEvent], bool]:
    """A page of a job's events, newest first, and whether there are more."""
    library = services_of(request).library

    async def read(limit: int, cursor: str | None) -> Page[JobEvent]:
        after = last if cursor is None else int(cursor)
        found = await library.read(
            library.store.job_events, job.tenant, job.id, after=after, limit=limit, newest_first=True, **which
        )
        return Page(tuple(found), str(found[-1].seq) if len(found) == limit else None)

    return await items_after(read, None, page_limit(limit), keep)


async def _looked_at(services: Services, principal: Principal, file: str, param: str) -> TrainingFile:
    """What a look at a file tells. Raises InvalidInputError, or the store's errors, with the param."""
    library = services.library
    try:
        found = await file_of(services, principal, file, param)
        if found.purpose != "fine-tune":
            raise InvalidInputError(
                f"The file's purpose is {found.purpose}: upload it with the purpose fine-tune.", field=param
            )
        return await library.read(_look, library.store, found)
    except StoreError as error:
        error.field = param
        raise


def _look(store: PromptStore, file: DataFile) -> TrainingFile:
    with store.local_file(file.tenant, file.id) as path:
        return look_at(path, file.name)


async def _queued(services: Services, store: PromptStore, principal: Principal, body: FineTuningBody) -> Job:
    file = await _looked_at(services, principal, body.training_file, "training_file")
    if body.validation_file is not None:
        await _looked_at(services, principal, body.validation_file, "validation_file")
    try:
        document = await document_of(services, principal, body, file)
        return await queue_job(services, store, principal, document)
    except (ChorusError, StoreError) as error:
        if error.field not in type(body).model_fields and error.code != "idempotency_key_reused":
            error.field = param_of(error.field, body.chorus)
        raise


def _answer(services: Services, job: Job) -> Response:
    return json_response(job_object(job, services.base().name))
