"""`/v1/tasks/{task}/aliases` and `/rollback`: names that move between versions, with their history."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import AliasName, TaskName, TenantName, owner_of_task
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.library.shared import task_to_read
from chorus_server.api.records import history_json, move_json
from chorus_server.api.schemas.prompts import AliasBody, AliasesAnswer, AliasMoveAnswer, RollbackBody
from chorus_server.api.services import acting_store, services_of

router = APIRouter(route_class=ChorusRoute, tags=["aliases"])


@router.get("/v1/tasks/{task}/aliases", response_model=AliasesAnswer, responses=READ_ERRORS)
async def list_aliases(
    request: Request,
    principal: MayRead,
    task: TaskName,
    limit: Annotated[
        int | None, Query(ge=1, le=500, description="Only the newest moves; every move without it.")
    ] = None,
    tenant: TenantName = None,
) -> Response:
    """Where the aliases point now, where a rollback would lead, and how they moved."""
    library = services_of(request).library
    owner = await task_to_read(library, principal, tenant, task)
    aliases = await library.read(library.store.aliases, owner, task)
    back = await library.read(library.store.rollbacks, owner, task)
    history = await library.read(library.store.alias_history, owner, task, limit=limit)
    before = {"aliases": dict(aliases), "back": dict(back)}
    return await list_response("history", map(history_json, history), before=before)


@router.put("/v1/tasks/{task}/aliases/{alias}", response_model=AliasMoveAnswer, responses=WRITE_ERRORS)
async def set_alias(
    request: Request,
    principal: MayWrite,
    task: TaskName,
    alias: AliasName,
    body: AliasBody,
    tenant: TenantName = None,
) -> Response:
    """Point an alias at a version, atomically."""
    library = services_of(request).library
    owner = owner_of_task(principal, tenant, task)
    move = await library.write(
        acting_store(request).set_alias,
        owner,
        task,
        alias,
        body.version,
        expected=body.expected,
        moved_by=principal.name,
    )
    return json_response(move_json(move))


@router.delete(
    "/v1/tasks/{task}/aliases/{alias}", status_code=204, response_model=None, responses=WRITE_ERRORS
)
async def remove_alias(
    request: Request, principal: MayWrite, task: TaskName, alias: AliasName, tenant: TenantName = None
) -> Response:
    """Remove an alias; its history stays."""
    library = services_of(request).library
    owner = owner_of_task(principal, tenant, task)
    await library.write(acting_store(request).remove_alias, owner, task, alias, moved_by=principal.name)
    return Response(status_code=204)


@router.post("/v1/tasks/{task}/rollback", response_model=AliasMoveAnswer, responses=WRITE_ERRORS)
async def rollback(
    request: Request,
    principal: MayWrite,
    task: TaskName,
    body: RollbackBody | None = None,
    tenant: TenantName = None,
) -> Response:
    """Point an alias at the version that it named before."""
    library, wanted = services_of(request).library, body or RollbackBody()
    move = await library.write(
        acting_store(request).rollback,
        owner_of_task(principal, tenant, task),
        task,
        wanted.alias,
        version=wanted.version,
        expected=wanted.expected,
        moved_by=principal.name,
    )
    return json_response(move_json(move))
