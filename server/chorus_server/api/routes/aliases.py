"""`/v1/tasks/{task}/aliases` and `/rollback`: names that move between versions, with their history."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import AliasName, Cursor, Limit, TaskName, TenantName, owner_of_task
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.library.shared import task_to_read
from chorus_server.api.moves import aliases_response, moved, removed
from chorus_server.api.schemas.prompts import AliasBody, AliasesAnswer, AliasMoveAnswer, RollbackBody
from chorus_server.api.services import acting_store, services_of

router = APIRouter(route_class=ChorusRoute, tags=["aliases"])


@router.get("/v1/tasks/{task}/aliases", response_model=AliasesAnswer, responses=READ_ERRORS)
async def list_aliases(
    request: Request,
    principal: MayRead,
    task: TaskName,
    limit: Limit = 50,
    cursor: Cursor = None,
    tenant: TenantName = None,
) -> Response:
    """Where the aliases point now, where a rollback would lead, and how they moved: the newest moves,
    oldest first; the next page has older ones."""
    library = services_of(request).library
    owner = await task_to_read(library, principal, tenant, task)
    aliases = await library.read(library.store.aliases, owner, task)
    back = await library.read(library.store.rollbacks, owner, task)
    history = await library.read(library.store.alias_history, owner, task, limit=limit, cursor=cursor)
    return await aliases_response(aliases, back, history)


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
    owner, change = owner_of_task(principal, tenant, task), acting_store(request).set_alias
    return await moved(request, principal, change, owner, task, alias, body.version, expected=body.expected)


@router.delete(
    "/v1/tasks/{task}/aliases/{alias}", status_code=204, response_model=None, responses=WRITE_ERRORS
)
async def remove_alias(
    request: Request, principal: MayWrite, task: TaskName, alias: AliasName, tenant: TenantName = None
) -> Response:
    """Remove an alias; its history stays."""
    owner = owner_of_task(principal, tenant, task)
    return await removed(request, principal, acting_store(request).remove_alias, owner, task, alias)


@router.post("/v1/tasks/{task}/rollback", response_model=AliasMoveAnswer, responses=WRITE_ERRORS)
async def rollback(
    request: Request,
    principal: MayWrite,
    task: TaskName,
    body: RollbackBody | None = None,
    tenant: TenantName = None,
) -> Response:
    """Point an alias at the version that it named before."""
    owner, wanted = owner_of_task(principal, tenant, task), body or RollbackBody()
    change, options = acting_store(request).rollback, {"version": wanted.version, "expected": wanted.expected}
    return await moved(request, principal, change, owner, task, wanted.alias, **options)
