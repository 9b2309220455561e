"""`/v1/ensembles/{name}/aliases` and `/rollback`: names that move between versions, with their history."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import (
    AliasName,
    Cursor,
    EnsembleName,
    Limit,
    TenantName,
    owner_of_ensemble,
)
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.library.shared import ensemble_to_read
from chorus_server.api.moves import aliases_response, moved, removed
from chorus_server.api.schemas.prompts import AliasBody, AliasesAnswer, AliasMoveAnswer, RollbackBody
from chorus_server.api.services import acting_store, services_of

router = APIRouter(route_class=ChorusRoute, tags=["ensembles"])


@router.get("/v1/ensembles/{name}/aliases", response_model=AliasesAnswer, responses=READ_ERRORS)
async def list_ensemble_aliases(
    request: Request,
    principal: MayRead,
    name: EnsembleName,
    limit: Limit = 50,
    cursor: Cursor = None,
    tenant: TenantName = None,
) -> Response:
    """Where the aliases point now, where a rollback would lead, and how they moved: the newest moves,
    oldest first; the next page has older ones."""
    library = services_of(request).library
    owner = await ensemble_to_read(library, principal, tenant, name)
    record = await library.read(library.store.get_ensemble, owner, name)
    history = await library.read(
        library.store.ensemble_alias_history, owner, name, limit=limit, cursor=cursor
    )
    return await aliases_response(record.aliases, record.back, history)


@router.put("/v1/ensembles/{name}/aliases/{alias}", response_model=AliasMoveAnswer, responses=WRITE_ERRORS)
async def set_ensemble_alias(
    request: Request,
    principal: MayWrite,
    name: EnsembleName,
    alias: AliasName,
    body: AliasBody,
    tenant: TenantName = None,
) -> Response:
    """Point an alias at a version, atomically."""
    owner = owner_of_ensemble(principal, tenant, name)
    change = acting_store(request).set_ensemble_alias
    return await moved(request, principal, change, owner, name, alias, body.version, expected=body.expected)


@router.delete(
    "/v1/ensembles/{name}/aliases/{alias}", status_code=204, response_model=None, responses=WRITE_ERRORS
)
async def remove_ensemble_alias(
    request: Request, principal: MayWrite, name: EnsembleName, alias: AliasName, tenant: TenantName = None
) -> Response:
    """Remove an alias; its history stays."""
    owner = owner_of_ensemble(principal, tenant, name)
    return await removed(request, principal, acting_store(request).remove_ensemble_alias, owner, name, alias)


@router.post("/v1/ensembles/{name}/rollback", response_model=AliasMoveAnswer, responses=WRITE_ERRORS)
async def rollback_ensemble(
    request: Request,
    principal: MayWrite,
    name: EnsembleName,
    body: RollbackBody | None = None,
    tenant: TenantName = None,
) -> Response:
    """Point an alias at the version that it named before."""
    owner, wanted = owner_of_ensemble(principal, tenant, name), body or RollbackBody()
    change, options = (
        acting_store(request).rollback_ensemble,
        {"version": wanted.version, "expected": wanted.expected},
    )
    return await moved(request, principal, change, owner, name, wanted.alias, **options)
