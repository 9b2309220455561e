"""`/v1/packs`: decision packs, whose questions are pinned to versions when a pack is made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import (
    Cursor,
    Limit,
    PackName,
    Prefix,
    TenantName,
    owner_of_pack,
)
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.library.resolve import check_base
from chorus_server.api.library.shared import pack_to_read
from chorus_server.api.records import pack_json
from chorus_server.api.schemas.prompts import PackPage, PackVersionBody, PackVersionPage, StoredPack
from chorus_server.api.services import acting_store, services_of
from chorus_server.errors import InvalidInputError
from chorus_server.validation import join_path
from prompts_store.records import PackEntry

router = APIRouter(route_class=ChorusRoute, tags=["packs"])


@router.get("/v1/packs", response_model=PackPage, responses=READ_ERRORS)
async def list_packs(
    request: Request, principal: MayRead, limit: Limit = 50, cursor: Cursor = None, prefix: Prefix = None
) -> Response:
    """The tenant's packs, by name."""
    library = services_of(request).library
    page = await library.read(
        library.store.list_packs, principal.tenant, prefix=prefix or "", limit=limit, cursor=cursor
    )
    packs = (
        pack_json(record.latest, record) for record in page.items if principal.may_name(record.latest.name)
    )
    return await list_response("packs", packs, after={"next_cursor": page.next_cursor})


@router.get("/v1/packs/{name}/versions", response_model=PackVersionPage, responses=READ_ERRORS)
async def list_pack_versions(
    request: Request,
    principal: MayRead,
    name: PackName,
    limit: Limit = 50,
    cursor: Cursor = None,
    tenant: TenantName = None,
) -> Response:
    """A pack's versions, newest first."""
    library = services_of(request).library
    owner = await pack_to_read(library, principal, tenant, name)
    record = await library.read(library.store.get_pack, owner, name)
    page = await library.read(library.store.list_pack_versions, owner, name, limit=limit, cursor=cursor)
    versions = (pack_json(version, record) for version in page.items)
    return await list_response("versions", versions, after={"next_cursor": page.next_cursor})


@router.post(
    "/v1/packs/{name}/versions",
    status_code=201,
    response_model=StoredPack,
    responses={**WRITE_ERRORS, 200: {"model": StoredPack, "description": "It was there already."}},
)
async def publish_pack(
    request: Request, principal: MayWrite, name: PackName, body: PackVersionBody, tenant: TenantName = None
) -> Response:
    """Make a version. The references are resolved now, and what answers a question never changes."""
    services = services_of(request)
    owner = owner_of_pack(principal, tenant, name)
    library, fingerprint = services.library, services.base().fingerprint
    wanted: dict[str, str] = {}
    for question, each in body.questions.items():
        wanted.setdefault(each.task, f"{join_path('questions', question)}.task")
    versions = {}
    for reference, field in wanted.items():
        version = await library.resolve(reference, principal.tenant, field, patterns=principal.tasks)
        check_base(version, fingerprint, field)
        versions[reference] = version
    entries = [
        PackEntry(question, made_of.tenant, made_of.task, made_of.number, each.values)
        for question, each in body.questions.items()
        for made_of in (versions[each.task],)
    ]
    made, created = await library.write(
        acting_store(request).publish_pack,
        owner,
        name,
        entries,
        body.unknown_questions,
        created_by=principal.name,
    )
    record = await library.read(library.store.get_pack, owner, name)
    return json_response(pack_json(made, record), 201 if created else 200)


@router.get("/v1/packs/{name}", response_model=StoredPack, responses=READ_ERRORS)
async def show_pack(
    request: Request,
    principal: MayRead,
    name: PackName,
    version: Annotated[int | None, Query(ge=1, le=2_147_483_647)] = None,
    alias: Annotated[str | None, Query(max_length=256)] = None,
    tenant: TenantName = None,
) -> Response:
    """One version of a pack: the newest, or the one that `version` or `alias` names."""
    if version is not None and alias is not None:
        raise InvalidInputError("Send one of version and alias.", field="alias")
    library = services_of(request).library
    owner = await pack_to_read(library, principal, tenant, name)
    record = await library.read(library.store.get_pack, owner, name)
    found = record.latest
    if version is not None or alias is not None:
        suffix = str(version) if version is not None else alias
        field = "alias" if alias else "version"
        found = await library.resolve_pack(f"{owner}/{name}@{suffix}", owner, field)
    return json_response(pack_json(found, record))


@router.delete("/v1/packs/{name}", status_code=204, response_model=None, responses=WRITE_ERRORS)
async def delete_pack(
    request: Request, principal: MayWrite, name: PackName, tenant: TenantName = None
) -> Response:
    """Tombstone a pack with all its versions."""
    library = services_of(request).library
    owner = owner_of_pack(principal, tenant, name)
    await library.write(acting_store(request).delete_pack, owner, name, deleted_by=principal.name)
    return Response(status_code=204)
