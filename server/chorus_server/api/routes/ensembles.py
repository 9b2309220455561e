"""`/v1/ensembles`: stored ensembles, whose members are pinned to versions when an ensemble is made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import (
    Cursor,
    EnsembleName,
    Limit,
    Prefix,
    TenantName,
    owner_of_ensemble,
)
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.inference.items import weights_of
from chorus_server.api.library.resolve import check_base
from chorus_server.api.library.shared import ensemble_to_read
from chorus_server.api.records import ensemble_json
from chorus_server.api.schemas.prompts import (
    EnsemblePage,
    EnsembleVersionBody,
    EnsembleVersionPage,
    StoredEnsemble,
)
from chorus_server.api.services import acting_store, services_of
from chorus_server.errors import InvalidInputError
from prompts_store.records import EnsembleMember

router = APIRouter(route_class=ChorusRoute, tags=["ensembles"])


@router.get("/v1/ensembles", response_model=EnsemblePage, responses=READ_ERRORS)
async def list_ensembles(
    request: Request, principal: MayRead, limit: Limit = 50, cursor: Cursor = None, prefix: Prefix = None
) -> Response:
    """The tenant's ensembles, by name."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_ensembles, principal.tenant, prefix=prefix or "", limit=limit, cursor=cursor
    )
    ensembles = (
        ensemble_json(record.latest, record)
        for record in page.items
        if principal.may_name(record.latest.name)
    )
    return await list_response("ensembles", ensembles, after={"next_cursor": page.next_cursor})


@router.get("/v1/ensembles/{name}/versions", response_model=EnsembleVersionPage, responses=READ_ERRORS)
async def list_ensemble_versions(
    request: Request,
    principal: MayRead,
    name: EnsembleName,
    limit: Limit = 50,
    cursor: Cursor = None,
    tenant: TenantName = None,
) -> Response:
    """An ensemble's versions, newest first."""
    library = services_of(request).library
    owner = await ensemble_to_read(library, principal, tenant, name)
    record = await library.read(library.store.get_ensemble, owner, name)
    page = await library.read(library.store.list_ensemble_versions, owner, name, limit=limit, cursor=cursor)
    versions = (ensemble_json(version, record) for version in page.items)
    return await list_response("versions", versions, after={"next_cursor": page.next_cursor})


@router.post(
    "/v1/ensembles/{name}/versions",
    status_code=201,
    response_model=StoredEnsemble,
    responses={**WRITE_ERRORS, 200: {"model": StoredEnsemble, "description": "It was there already."}},
)
async def publish_ensemble(
    request: Request,
    principal: MayWrite,
    name: EnsembleName,
    body: EnsembleVersionBody,
    tenant: TenantName = None,
) -> Response:
    """Make a version. The references are resolved now, and the members never change."""
    services = services_of(request)
    owner = owner_of_ensemble(principal, tenant, name)
    library, fingerprint = services.library, services.base().fingerprint
    weights = weights_of(body.weights, len(body.tasks))
    members = []
    for index, (reference, weight) in enumerate(zip(body.tasks, weights, strict=True)):
        version = await library.resolve(
            reference, principal.tenant, f"tasks.{index}", patterns=principal.tasks
        )
        check_base(version, fingerprint, f"tasks.{index}")
        members.append(EnsembleMember(version.tenant, version.task, version.number, float(weight)))
    made, created = await library.write(
        acting_store(request).publish_ensemble,
        owner,
        name,
        members,
        vote=body.vote,
        created_by=principal.name,
    )
    record = await library.read(library.store.get_ensemble, owner, name)
    return json_response(ensemble_json(made, record), 201 if created else 200)


@router.get("/v1/ensembles/{name}", response_model=StoredEnsemble, responses=READ_ERRORS)
async def show_ensemble(
    request: Request,
    principal: MayRead,
    name: EnsembleName,
    version: Annotated[int | None, Query(ge=1, le=2_147_483_647)] = None,
    alias: Annotated[str | None, Query(max_length=256)] = None,
    tenant: TenantName = None,
) -> Response:
    """One version of an ensemble: the newest, or the one that `version` or `alias` names."""
    if version is not None and alias is not None:
        raise InvalidInputError("Send one of version and alias.", field="alias")
    library = services_of(request).library
    owner = await ensemble_to_read(library, principal, tenant, name)
    record = await library.read(library.store.get_ensemble, owner, name)
    found = record.latest
    if version is not None or alias is not None:
        suffix = str(version) if version is not None else alias
        reference = f"{owner}/{name}@{suffix}"
        found = await library.resolve_ensemble(reference, owner, "alias" if alias else "version")
    return json_response(ensemble_json(found, record))


@router.delete("/v1/ensembles/{name}", status_code=204, response_model=None, responses=WRITE_ERRORS)
async def delete_ensemble(
    request: Request, principal: MayWrite, name: EnsembleName, tenant: TenantName = None
) -> Response:
    """Tombstone an ensemble with all its versions."""
    library = services_of(request).library
    owner = owner_of_ensemble(principal, tenant, name)
    await library.write(acting_store(request).delete_ensemble, owner, name, deleted_by=principal.name)
    return Response(status_code=204)
