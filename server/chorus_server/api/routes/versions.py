"""`/v1/tasks/{task}/versions`: list, show, tombstone, download."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayWrite
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import (
    Cursor,
    Limit,
    TaskName,
    TenantName,
    VersionInPath,
    owner_of_task,
)
from chorus_server.api.http.responses import READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.library.shared import task_to_read
from chorus_server.api.names_of_bases import base_model_name
from chorus_server.api.records import version_json
from chorus_server.api.schemas.prompts import VersionAnswer, VersionPage
from chorus_server.api.services import acting_store, services_of
from prompts_store.artifacts import FORMATS, ArtifactFormat, write_artifact
from prompts_store.records import PromptVersion

router = APIRouter(route_class=ChorusRoute, tags=["versions"])


@router.get("/v1/tasks/{task}/versions", response_model=VersionPage, responses=READ_ERRORS)
async def list_versions(
    request: Request,
    principal: MayRead,
    task: TaskName,
    limit: Limit = 50,
    cursor: Cursor = None,
    tenant: TenantName = None,
) -> Response:
    """A task's versions, newest first."""
    library = services_of(request).library
    owner = await task_to_read(library, principal, tenant, task)
    page = await library.read(library.store.list_versions, owner, task, limit=limit, cursor=cursor)
    aliases = await library.read(library.store.aliases, owner, task)
    versions = (version_json(version, aliases) for version in page.items)
    return await list_response("versions", versions, after={"next_cursor": page.next_cursor})


@router.get("/v1/tasks/{task}/versions/{n}", response_model=VersionAnswer, responses=READ_ERRORS)
async def show_version(
    request: Request, principal: MayRead, task: TaskName, n: VersionInPath, tenant: TenantName = None
) -> Response:
    """One version."""
    library = services_of(request).library
    owner = await task_to_read(library, principal, tenant, task)
    version = await library.read(library.store.get_version, owner, task, n)
    aliases = await library.read(library.store.aliases, owner, task)
    return json_response(version_json(version, aliases))


@router.delete("/v1/tasks/{task}/versions/{n}", status_code=204, response_model=None, responses=WRITE_ERRORS)
async def delete_version(
    request: Request, principal: MayWrite, task: TaskName, n: VersionInPath, tenant: TenantName = None
) -> Response:
    """Tombstone a version; 409 while an alias or an ensemble names it."""
    library = services_of(request).library
    owner = owner_of_task(principal, tenant, task)
    await library.write(acting_store(request).delete_version, owner, task, n, deleted_by=principal.name)
    return Response(status_code=204)


@router.get(
    "/v1/tasks/{task}/versions/{n}/artifact",
    response_class=Response,
    responses={
        **READ_ERRORS,
        200: {
            "description": "The prompt's file; its ETag is the digest.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def download(
    request: Request,
    principal: MayRead,
    task: TaskName,
    n: VersionInPath,
    format: Annotated[
        ArtifactFormat, Query(description="`peft` is a zip file of an adapter.")
    ] = "safetensors",
    tenant: TenantName = None,
) -> Response:
    """The prompt as a file."""
    services = services_of(request)
    library = services.library
    owner = await task_to_read(library, principal, tenant, task)
    version = await library.read(library.store.get_version, owner, task, n)
    name = base_model_name(version, None if services.serving is None else services.serving.base)
    content = await library.read(_artifact, library, version, format, name)
    known = FORMATS[format]
    headers = {
        "Content-Disposition": f'attachment; filename="{version.task}-{version.number}{known.suffix}"',
        "ETag": f'"{version.manifest.digest}"',
    }
    return Response(content, headers=headers, media_type=known.media_type)


def _artifact(
    library: PromptLibrary, version: PromptVersion, format: ArtifactFormat, base_model_name: str | None
) -> bytes:
    with library.store.hold(version):
        values = library.store.values(version.manifest.digest)
    return write_artifact(values, format, manifest=version.manifest, base_model_name=base_model_name)
