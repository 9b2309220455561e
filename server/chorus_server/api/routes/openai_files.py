"""`/openai/v1/files`: the files of `/v1/files` in OpenAI's fields."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import OnceAMinute
from chorus_server.api.inference.answers import json_response
from chorus_server.api.jobs.seeing import file_of, page_of_files
from chorus_server.api.openai.errors import OPENAI_ERRORS, PREFIX, OpenAIRoute, openai_errors
from chorus_server.api.openai.files import PARTS, file_object, purpose_of
from chorus_server.api.openai.lists import (
    After,
    MostItems,
    cursor_after,
    items_after,
    object_list,
    page_limit,
)
from chorus_server.api.routes.files import BINARY, FileId, bytes_of, deleted, received, sender_of
from chorus_server.api.schemas.openai.files import DeletedFile, FileObject, FileObjects
from chorus_server.api.services import services_of

router = APIRouter(route_class=OpenAIRoute, tags=["openai"])

_PATH = f"{PREFIX}/v1/files"
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "purpose": {"enum": ["fine-tune", "batch", "user_data"]},
                        "file": BINARY["schema"],
                    },
                }
            }
        },
    }
}


@router.post(_PATH, response_model=FileObject, responses=openai_errors(409, 422), openapi_extra=_BODY)
async def upload_for_purpose(request: Request, principal: MayTune, once: OnceAMinute) -> Response:
    """Upload a file in a form with its purpose. It is written to the disk as it arrives."""
    sender = replace(sender_of(request, principal), parts=PARTS, purpose_of=purpose_of)
    return json_response(file_object(await received(request, sender, once)))


@router.get(_PATH, response_model=FileObjects, responses=OPENAI_ERRORS)
async def list_file_objects(
    request: Request,
    principal: MayRead,
    after: After = None,
    limit: MostItems = 10_000,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation.")] = "desc",
    purpose: Annotated[str | None, Query(max_length=64, description="Only files for this.")] = None,
) -> Response:
    """The tenant's files that the key may see, newest first."""
    read = partial(
        page_of_files, services_of(request), principal, purpose=purpose, oldest_first=order == "asc"
    )
    files, more = await items_after(read, cursor_after("files", after), page_limit(limit))
    return await object_list(files, file_object, more)


@router.get(_PATH + "/{file}", response_model=FileObject, responses=OPENAI_ERRORS)
async def show_file_object(request: Request, principal: MayRead, file: FileId) -> Response:
    """Describe a file, without its bytes."""
    return json_response(file_object(await file_of(services_of(request), principal, file)))


@router.get(
    _PATH + "/{file}/content",
    response_model=None,
    responses={**OPENAI_ERRORS, 200: {"content": {"application/octet-stream": BINARY}}},
)
async def file_object_content(request: Request, principal: MayRead, file: FileId) -> Response:
    """The bytes of a file."""
    return await bytes_of(request, principal, file)


@router.delete(_PATH + "/{file}", response_model=DeletedFile, responses=openai_errors(409))
async def delete_file_object(request: Request, principal: MayTune, file: FileId) -> Response:
    """Delete a file, unless an unfinished job needs it."""
    await deleted(request, principal, file)
    return json_response({"id": file, "object": "file", "deleted": True})
