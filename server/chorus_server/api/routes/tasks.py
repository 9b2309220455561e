"""`/v1/tasks`: list, show, tombstone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Cursor, Limit, Prefix, TaskName, TenantName, owner_of_task
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.library.shared import task_to_read
from chorus_server.api.records import task_json
from chorus_server.api.schemas.prompts import TaskAnswer, TaskPage
from chorus_server.api.services import acting_store, services_of

router = APIRouter(route_class=ChorusRoute, tags=["tasks"])


@router.get("/v1/tasks", response_model=TaskPage, responses=READ_ERRORS)
async def list_tasks(
    request: Request,
    principal: MayRead,
    limit: Limit = 50,
    cursor: Cursor = None,
    prefix: Prefix = None,
    label: Annotated[
        str | None, Query(max_length=512, description="Only tasks whose live version has this label.")
    ] = None,
) -> Response:
    """The tenant's tasks, by name."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_tasks,
        principal.tenant,
        prefix=prefix or "",
        label=label,
        limit=limit,
        cursor=cursor,
    )
    tasks = (task_json(task) for task in page.items if principal.may_name(task.name))
    return await list_response("tasks", tasks, after={"next_cursor": page.next_cursor})


@router.get("/v1/tasks/{task}", response_model=TaskAnswer, responses=READ_ERRORS)
async def show_task(
    request: Request, principal: MayRead, task: TaskName, tenant: TenantName = None
) -> Response:
    """One task."""
    library = services_of(request).library
    owner = await task_to_read(library, principal, tenant, task)
    record = await library.read(library.store.get_task, owner, task)
    return json_response(task_json(record))


@router.delete("/v1/tasks/{task}", status_code=204, response_model=None, responses=WRITE_ERRORS)
async def delete_task(
    request: Request, principal: MayWrite, task: TaskName, tenant: TenantName = None
) -> Response:
    """Tombstone a task with its versions and aliases. Requests that already run on them finish."""
    library = services_of(request).library
    owner = owner_of_task(principal, tenant, task)
    await library.write(acting_store(request).delete_task, owner, task, deleted_by=principal.name)
    return Response(status_code=204)
