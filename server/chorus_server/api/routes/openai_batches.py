"""`/openai/v1/batches`: start, list, show, cancel, in the fields of OpenAI's API."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.batch.queueing import queue_batch
from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import OnceAMinute
from chorus_server.api.inference.answers import json_response
from chorus_server.api.jobs.seeing import may_see
from chorus_server.api.openai.batches import openai_batch
from chorus_server.api.openai.errors import OPENAI_ERRORS, OpenAIRoute, openai_errors
from chorus_server.api.openai.lists import After, cursor_after, items_after, object_list
from chorus_server.api.routes.tuning_jobs import JobId
from chorus_server.api.schemas.documents.batch import BatchDocument
from chorus_server.api.schemas.openai.batches import BatchBody, OpenAIBatch, OpenAIBatchList
from chorus_server.api.services import acting_store, services_of
from chorus_server.api.tuning.steering import job_of, stopped

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])


@router.post("/openai/v1/batches", response_model=OpenAIBatch, responses=openai_errors(409, 422))
async def start_openai_batch(
    request: Request, principal: MayTune, body: BatchBody, once: OnceAMinute
) -> Response:
    """Queue a batch. Its lines are checked when it runs, all before the first is asked."""
    services = services_of(request)
    document = BatchDocument(file=body.input_file_id, endpoint=body.endpoint, metadata=body.metadata)
    job = await once.made(
        lambda: queue_batch(services, acting_store(request), principal, document, "input_file_id"),
        lambda made: job_of(services, principal, made, "batch"),
    )
    services.wake_jobs()
    return json_response(openai_batch(job))


@router.get("/openai/v1/batches", response_model=OpenAIBatchList, responses=OPENAI_ERRORS)
async def list_openai_batches(
    request: Request,
    principal: MayRead,
    limit: Annotated[int, Query(ge=1, le=100, description="Most batches in the answer.")] = 20,
    after: After = None,
) -> Response:
    """The tenant's batches, newest first."""
    library = services_of(request).library
    read = partial(library.read, library.store.list_jobs, principal.tenant, "batch")
    jobs, more = await items_after(read, cursor_after("jobs", after), limit, partial(may_see, principal))
    return await object_list(jobs, openai_batch, more)


@router.get("/openai/v1/batches/{batch}", response_model=OpenAIBatch, responses=OPENAI_ERRORS)
async def show_openai_batch(request: Request, principal: MayRead, batch: JobId) -> Response:
    """One batch."""
    return json_response(openai_batch(await job_of(services_of(request), principal, batch, "batch")))


@router.post("/openai/v1/batches/{batch}/cancel", response_model=OpenAIBatch, responses=openai_errors(409))
async def cancel_openai_batch(request: Request, principal: MayTune, batch: JobId) -> Response:
    """Cancel a batch: at once while it is queued, else as soon as whoever runs it sees the request."""
    found = await stopped(request, principal, batch, "batch", acting_store(request).cancel_job)
    return json_response(openai_batch(found))
