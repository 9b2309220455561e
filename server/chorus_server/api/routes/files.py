"""`/v1/files`: training data, uploaded as a stream, and what jobs made, as a stream back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from chorus_server.api.door.auth import MayRead, MayTune
from chorus_server.api.door.once import MakesOnce, Once
from chorus_server.api.door.routing import ChorusRoute
from chorus_server.api.http.parameters import Cursor, Limit
from chorus_server.api.http.responses import CREATION_ERRORS, READ_ERRORS, WRITE_ERRORS
from chorus_server.api.inference.answers import json_response, list_response
from chorus_server.api.jobs.seeing import file_of, page_of_files
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.schemas.tuning import FileAnswer, FilePage
from chorus_server.api.services import acting_store, services_of, share_of
from chorus_server.api.tuning.records import file_json
from chorus_server.api.tuning.uploads import Sender, receive_file
from chorus_server.errors import CancelledError, ChorusError, InternalError, ShuttingDownError
from chorus_server.tenancy.principal import Principal
from prompts_store.errors import StoreError
from prompts_store.files.records import DataFile
from prompts_store.store import PromptStore

router = APIRouter(route_class=ChorusRoute, tags=["files"])

FileId = Annotated[str, Path(max_length=256, description="Id of a file in the key's tenant.")]

_PIECE_BYTES = 256 << 10
BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


@router.post(
    "/v1/files", status_code=201, response_model=FileAnswer, responses=CREATION_ERRORS, openapi_extra=_BODY
)
async def upload_file(
    request: Request,
    principal: MayTune,
    once: Once,
    name: Annotated[
        str | None, Query(max_length=1024, description="The file's name; by default the one in the form.")
    ] = None,
) -> Response:
    """Upload a file, raw or in a form. It is written to the disk as it arrives; a broken upload leaves
    nothing."""
    return json_response(file_json(await received(request, sender_of(request, principal, name), once)), 201)


def sender_of(request: Request, principal: Principal, name: str | None = None) -> Sender:
    """Who uploads a file with this request."""
    limit = services_of(request).settings.tuning_max_file_bytes
    return Sender(principal.tenant, principal.name, principal.key or "", name, limit)


async def received(request: Request, sender: Sender, once: MakesOnce) -> DataFile:
    """The file of a request, once it is stored; counted. Raises as `receive_file` and `MakesOnce.made` do."""
    services = services_of(request)
    library, metrics = services.library, services.metrics.api
    # One that comes again may find its tenant full of what it made.
    sender = replace(sender, repeats=await once.known() is not None)
    try:
        file = await once.made(
            lambda: receive_file(request, library, sender, share_of(request)),
            lambda made: library.read(library.store.get_file, sender.tenant, made),
        )
    except (Exception, asyncio.CancelledError) as error:
        metrics.files_refused.inc(1, _reason(error))
        raise
    metrics.files_accepted.inc()
    metrics.files_accepted_bytes.inc(file.size_bytes)
    return file


@router.get("/v1/files", response_model=FilePage, responses=READ_ERRORS)
async def list_files(
    request: Request, principal: MayRead, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """The tenant's files that the key may see, newest first."""
    page = await page_of_files(services_of(request), principal, limit=limit, cursor=cursor)
    return await list_response("files", map(file_json, page.items), after={"next_cursor": page.next_cursor})


@router.get("/v1/files/{file}", response_model=FileAnswer, responses=READ_ERRORS)
async def show_file(request: Request, principal: MayRead, file: FileId) -> Response:
    """Describe a file, without its bytes."""
    return json_response(file_json(await file_of(services_of(request), principal, file)))


@router.get(
    "/v1/files/{file}/content",
    response_model=None,
    responses={**READ_ERRORS, 200: {"content": {"application/octet-stream": BINARY}}},
)
async def file_content(request: Request, principal: MayRead, file: FileId) -> Response:
    """The bytes of a file."""
    return await bytes_of(request, principal, file)


async def bytes_of(request: Request, principal: Principal, file: str) -> Response:
    """An answer with the bytes of a file. Raises as the store does."""
    services = services_of(request)
    library, found = services.library, await file_of(services, principal, file)
    opened = await library.read(_opened, library.store, principal.tenant, file)
    headers = {"content-length": str(found.size_bytes)}
    return StreamingResponse(_pieces(library, opened), media_type="application/octet-stream", headers=headers)


def _opened(store: PromptStore, tenant: str, file: str) -> BinaryIO:
    """Opened already, so that a file that is deleted meanwhile is sent whole."""
    with store.local_file(tenant, file) as path:
        return path.open("rb")


async def _pieces(library: PromptLibrary, opened: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while piece := await library.read(opened.read, _PIECE_BYTES):
            yield piece
    finally:
        opened.close()


@router.delete("/v1/files/{file}", status_code=204, response_model=None, responses=WRITE_ERRORS)
async def delete_file(request: Request, principal: MayTune, file: FileId) -> Response:
    """Delete a file, unless an unfinished job needs it."""
    await deleted(request, principal, file)
    return Response(status_code=204)


async def deleted(request: Request, principal: Principal, file: str) -> None:
    """Delete a file that the caller's key may see. Raises as the store does."""
    services = services_of(request)
    await file_of(services, principal, file)
    store = acting_store(request)
    await services.library.save(store.delete_file, principal.tenant, file, deleted_by=principal.name)


def _reason(error: BaseException) -> str:
    """The metric's label: only our own codes, so that there are few values."""
    if isinstance(error, ClientDisconnect):
        return CancelledError.default_code
    if isinstance(error, asyncio.CancelledError):  # given up because the server is ending
        return ShuttingDownError.default_code
    return error.code if isinstance(error, ChorusError | StoreError) else InternalError.default_code
