"""`/v1/tasks/{task}/grants`, the same of ensembles and packs, and `/v1/shared`: what tenants share."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from chorus_server.api.door.auth import MayAdminister, MayRead
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import (
    Cursor,
    EnsembleName,
    Limit,
    PackName,
    TaskName,
    TenantName,
    owner_of_ensemble,
    owner_of_pack,
    owner_of_task,
)
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.records import grant_json, shared_json
from chorus_server.api.schemas.grants import GrantAnswer, GrantBody, GrantsAnswer, SharedPage
from chorus_server.api.services import acting_store, services_of
from chorus_server.errors import ForbiddenError
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.grants.records import GrantKind, Right

router = APIRouter(route_class=ChorusRoute, tags=["grants"])

Grantee = Annotated[
    str, Path(max_length=256, description="A tenant, whether there is one of this name or not; `*` is all.")
]

_SCOPES: dict[Right, Scope] = {"infer": Scope.INFER, "read": Scope.READ}


@router.get("/v1/shared", response_model=SharedPage, responses=READ_ERRORS)
async def list_shared(
    request: Request,
    principal: MayRead,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: Annotated[GrantKind | None, Query(description="Only tasks, ensembles or packs.")] = None,
) -> Response:
    """What other tenants share with the caller's, by owner and name."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_shared, principal.tenant, kind=kind, limit=limit, cursor=cursor
    )
    shared = (shared_json(item) for item in page.items if principal.may_name(item.name, item.tenant))
    return await list_response("shared", shared, after={"next_cursor": page.next_cursor})


@router.get("/v1/tasks/{task}/grants", response_model=GrantsAnswer, responses=READ_ERRORS)
async def list_task_grants(
    request: Request, principal: MayRead, task: TaskName, tenant: TenantName = None
) -> Response:
    """Who may use a task, and how."""
    return await _list(request, "task", owner_of_task(principal, tenant, task), task)


@router.put("/v1/tasks/{task}/grants/{grantee}", response_model=GrantAnswer, responses=WRITE_ERRORS)
async def share_task(
    request: Request,
    principal: MayAdminister,
    task: TaskName,
    grantee: Grantee,
    body: GrantBody,
    tenant: TenantName = None,
) -> Response:
    """Let a tenant, or all, use a task, in place of what it might do before."""
    return await _share(
        request, principal, "task", owner_of_task(principal, tenant, task), task, grantee, body
    )


@router.delete(
    "/v1/tasks/{task}/grants/{grantee}", status_code=204, response_model=None, responses=WRITE_ERRORS
)
async def unshare_task(
    request: Request, principal: MayAdminister, task: TaskName, grantee: Grantee, tenant: TenantName = None
) -> Response:
    """Revoke a grant. Every process on the database goes by it within a second; what runs is finished."""
    return await _unshare(request, "task", owner_of_task(principal, tenant, task), task, grantee)


@router.get("/v1/ensembles/{name}/grants", response_model=GrantsAnswer, responses=READ_ERRORS)
async def list_ensemble_grants(
    request: Request, principal: MayRead, name: EnsembleName, tenant: TenantName = None
) -> Response:
    """Who may use an ensemble, and how."""
    return await _list(request, "ensemble", owner_of_ensemble(principal, tenant, name), name)


@router.put("/v1/ensembles/{name}/grants/{grantee}", response_model=GrantAnswer, responses=WRITE_ERRORS)
async def share_ensemble(
    request: Request,
    principal: MayAdminister,
    name: EnsembleName,
    grantee: Grantee,
    body: GrantBody,
    tenant: TenantName = None,
) -> Response:
    """Let a tenant, or all, use an ensemble with its members, in place of what it might do before."""
    owner = owner_of_ensemble(principal, tenant, name)
    return await _share(request, principal, "ensemble", owner, name, grantee, body)


@router.delete(
    "/v1/ensembles/{name}/grants/{grantee}", status_code=204, response_model=None, responses=WRITE_ERRORS
)
async def unshare_ensemble(
    request: Request,
    principal: MayAdminister,
    name: EnsembleName,
    grantee: Grantee,
    tenant: TenantName = None,
) -> Response:
    """Revoke a grant. Every process on the database goes by it within a second; what runs is finished."""
    return await _unshare(request, "ensemble", owner_of_ensemble(principal, tenant, name), name, grantee)


@router.get("/v1/packs/{name}/grants", response_model=GrantsAnswer, responses=READ_ERRORS)
async def list_pack_grants(
    request: Request, principal: MayRead, name: PackName, tenant: TenantName = None
) -> Response:
    """Who may use a pack, and how."""
    return await _list(request, "pack", owner_of_pack(principal, tenant, name), name)


@router.put("/v1/packs/{name}/grants/{grantee}", response_model=GrantAnswer, responses=WRITE_ERRORS)
async def share_pack(
    request: Request,
    principal: MayAdminister,
    name: PackName,
    grantee: Grantee,
    body: GrantBody,
    tenant: TenantName = None,
) -> Response:
    """Let a tenant, or all, use a pack with its versions, in place of what it might do before."""
    owner = owner_of_pack(principal, tenant, name)
    return await _share(request, principal, "pack", owner, name, grantee, body)


@router.delete(
    "/v1/packs/{name}/grants/{grantee}", status_code=204, response_model=None, responses=WRITE_ERRORS
)
async def unshare_pack(
    request: Request, principal: MayAdminister, name: PackName, grantee: Grantee, tenant: TenantName = None
) -> Response:
    """Revoke a grant. Every process on the database goes by it within a second; what runs is finished."""
    return await _unshare(request, "pack", owner_of_pack(principal, tenant, name), name, grantee)


async def _list(request: Request, kind: GrantKind, owner: str, name: str) -> Response:
    library = services_of(request).library
    found = await library.read(library.store.list_grants, kind, owner, name)
    return await list_response("grants", map(grant_json, found))


async def _share(
    request: Request,
    principal: Principal,
    kind: GrantKind,
    owner: str,
    name: str,
    grantee: str,
    body: GrantBody,
) -> Response:
    for i, right in enumerate(body.rights):
        if _SCOPES[right] not in principal.scopes:
            raise ForbiddenError(
                f"A key cannot grant the right {right!r} without the scope {_SCOPES[right].value!r} itself: "
                "leave it out, or use another key.",
                field=f"rights.{i}",
            )
    library = services_of(request).library
    made = await library.write(
        acting_store(request).share, kind, owner, name, grantee, body.rights, created_by=principal.name
    )
    return json_response(grant_json(made))


async def _unshare(request: Request, kind: GrantKind, owner: str, name: str, grantee: str) -> Response:
    library = services_of(request).library
    await library.write(acting_store(request).unshare, kind, owner, name, grantee)
    return Response(status_code=204)
