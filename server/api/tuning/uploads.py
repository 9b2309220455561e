"""An uploaded file on its way into the store: counted as it comes, written on the store's threads.

Nothing holds a file in memory. A caller who leaves, a body that is too large, a full disk: whatever ends an
upload early, its bytes are gone when that is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

from prompts_store.files.records import DataFile
from prompts_store.files.writing import FileWriter
from server.api.http.bodies import BodyShare, declares_more, media_type
from server.api.http.multipart import Form
from server.api.library.resolve import PromptLibrary
from server.errors import InvalidInputError, TooLargeError

T = TypeVar("T")

BUFFER_BYTES = 1 << 20
"""Gathered before a thread of the store writes them."""

_FORM_BYTES = 64 << 10  # a form's own lines around the file


@dataclass(frozen=True, slots=True)
class Sender:
    """Who uploads what.

    Attributes:
        name: the file's, where the query says one.
        max_bytes: the most that a file may have.
    """

    tenant: str
    created_by: str
    name: str | None
    max_bytes: int


async def receive_file(
    request: Request, library: PromptLibrary, sender: Sender, share: BodyShare
) -> DataFile:
    """The stored file.

    Args:
        share: of the memory for bodies; where it has no room, less is gathered before it is written.

    Raises:
        TooLargeError: it is larger than `max_bytes`, by its Content-Length or in fact.
        InvalidInputError: no name, no file, or another content type than bytes and forms.
        StoreError: the name is none, or the disk failed.
        ClientDisconnect: the caller left.
    """
    kind = media_type(request)
    if kind not in ("application/octet-stream", "multipart/form-data"):
        raise InvalidInputError(
            "Send the file with 'Content-Type: application/octet-stream', or in a multipart form.",
            field="content-type",
            code="unsupported_media_type",
        )
    form = Form(request.headers["content-type"], ("file",)) if kind == "multipart/form-data" else None
    if declares_more(request, sender.max_bytes + (_FORM_BYTES if form else 0)):
        raise _too_large(sender.max_bytes)
    async with aclosing(_pieces(request, form, sender.max_bytes)) as pieces:
        first = await anext(pieces, b"")
        name = sender.name if sender.name is not None else form.filename if form else None
        if name is None:
            raise InvalidInputError(
                "The file has no name: say it with ?name=train.tsv; its ending tells the format.",
                field="name",
                code="missing_field",
            )
        manager = library.store.write_file(
            sender.tenant, name, created_by=sender.created_by, max_bytes=sender.max_bytes
        )
        async with _incoming(library, manager, sender.max_bytes, share) as incoming:
            await incoming.write(first)
            async for piece in pieces:
                await incoming.write(piece)
            return await incoming.commit()


async def _pieces(request: Request, form: Form | None, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The file's bytes, the first of them once its name is known."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes + (_FORM_BYTES if form else 0):
            raise _too_large(max_bytes)
        if form is None:
            yield chunk
            continue
        for _, piece in form.feed(chunk):
            yield piece
    if form is not None:
        form.finish()


class _Incoming:
    """A writer of the store, used from the event loop: one call at a time, each on a thread of the store."""

    def __init__(self, library: PromptLibrary, writer: FileWriter, max_bytes: int, share: BodyShare) -> None:
        self._library = library
        self._writer = writer
        self._max_bytes = max_bytes
        self._share = share
        self._received = 0
        self._buffer = bytearray()
        self.call: asyncio.Future[Any] | None = None

    async def write(self, piece: bytes) -> None:
        self._received += len(piece)
        if self._received > self._max_bytes:
            raise _too_large(self._max_bytes)
        room = self._share.grow(len(piece))
        self._buffer += piece
        if not room or len(self._buffer) >= BUFFER_BYTES:
            await self._flush()

    async def commit(self) -> DataFile:
        await self._flush()
        if not self._received:
            raise InvalidInputError("The file is empty: send its bytes.", field="file", code="empty_file")
        return await self._run(self._writer.commit)

    async def _flush(self) -> None:
        content = bytes(self._buffer)
        self._buffer.clear()
        if content:
            await self._run(partial(self._writer.write, content))
            self._share.release()

    async def _run(self, function: Callable[[], T]) -> T:
        self.call = call = asyncio.ensure_future(self._library.save(function))
        return await asyncio.shield(call)  # a cancelled upload still waits for its thread; see `_leave`


@asynccontextmanager
async def _incoming(
    library: PromptLibrary, manager: AbstractContextManager[FileWriter], max_bytes: int, share: BodyShare
) -> AsyncIterator[_Incoming]:
    """The writer, left however the block ends, also when the upload is cancelled."""
    writer = await library.take(manager.__enter__, lambda _: _close(manager))
    incoming = _Incoming(library, writer, max_bytes, share)
    try:
        yield incoming
    finally:
        await asyncio.shield(_leave(incoming, manager))


async def _leave(incoming: _Incoming, manager: AbstractContextManager[FileWriter]) -> None:
    """Not on the store's threads, which may refuse: after the last call, so that no thread still writes."""
    if incoming.call is not None:
        await asyncio.wait([incoming.call])
    await asyncio.to_thread(_close, manager)


def _close(manager: AbstractContextManager[FileWriter]) -> None:
    manager.__exit__(None, None, None)


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(
        f"The file is larger than {most} bytes, the most that is taken: send less, or split it.", field="file"
    )
