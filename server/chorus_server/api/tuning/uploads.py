"""An uploaded file on its way into the store: counted as it arrives, written on the store's threads.

No file is ever held in memory whole. If anything ends an upload early (the caller leaves, the body is too
large, the disk is full), its bytes are removed before the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import Request

from chorus_server.api.http.bodies import BodyShare, declared_bytes, declares_more, media_type
from chorus_server.api.http.multipart import Form
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.api.services import acting_store
from chorus_server.errors import InvalidInputError, TooLargeError
from prompts_store.files.records import DataFile, FilePurpose
from prompts_store.files.writing import FileWriter

T = TypeVar("T")

BUFFER_BYTES = 1 << 20
"""Bytes collected before a thread of the store writes them."""

_FORM_BYTES = 64 << 10  # the form's own lines around the file
_PART_BYTES = 256  # of a part that is not the file


@dataclass(frozen=True, slots=True)
class Sender:
    """Who uploads what.

    Attributes:
        created_by, key: name and id of the key; no id for one that has none.
        name: the file's name, if the query gives one.
        max_bytes: the largest file accepted.
        repeats: whether it may have been uploaded before; if so, only the store says if there is room.
        parts: names of further parts of the form, which may come before the file or after it.
        purpose_of: makes of their texts what the file is for; it refuses by raising. Asked as the file
            begins, with what came before it, and once more at its end.
    """

    tenant: str
    created_by: str
    key: str
    name: str | None
    max_bytes: int
    repeats: bool = False
    parts: tuple[str, ...] = ()
    purpose_of: Callable[[Mapping[str, str], bool], FilePurpose] = lambda parts, whole: "fine-tune"


async def receive_file(
    request: Request, library: PromptLibrary, sender: Sender, share: BodyShare
) -> DataFile:
    """Receive and store a file.

    Args:
        share: the request's share of the memory for bodies. If it has no room, less is collected before a
            write.

    Raises:
        TooLargeError: it is larger than `max_bytes`, by its Content-Length or in fact.
        InvalidInputError: the file has no name, there is no file, or the content type is neither bytes nor a
            form.
        LimitError: the tenant may keep no more; before the file comes, if its Content-Length says so.
        MadeBefore: of the store, see `creating`.
        StoreError: the name is not valid, or the disk failed.
        ClientDisconnect: the caller left.
    """
    kind = media_type(request)
    if kind not in ("application/octet-stream", "multipart/form-data"):
        raise InvalidInputError(
            "Send the file with 'Content-Type: application/octet-stream', or in a multipart form.",
            field="content-type",
            code="unsupported_media_type",
        )
    names = ("file", *sender.parts)
    form = Form(request.headers["content-type"], names) if kind == "multipart/form-data" else None
    parts: dict[str, bytearray] = {name: bytearray() for name in sender.parts}

    def purpose(whole: bool) -> FilePurpose:
        # A part has begun before its text is here, if both came in one piece with the file's end.
        begun = form.begun if form is not None and whole else [name for name in parts if parts[name]]
        texts = {name: text.decode("utf-8", "replace") for name, text in parts.items() if name in begun}
        return sender.purpose_of(texts, whole)

    if declares_more(request, sender.max_bytes + (_FORM_BYTES if form else 0)):
        raise _too_large(sender.max_bytes)
    least = max(1, declared_bytes(request) - (_FORM_BYTES if form else 0))
    if not sender.repeats:
        await library.read(library.store.check_file_room, sender.tenant, least)
    async with aclosing(_pieces(request, form, sender.max_bytes, parts)) as pieces:
        first = await anext(pieces, b"")
        purpose(False)
        name = sender.name if sender.name is not None else form.filename if form else None
        if name is None:
            raise InvalidInputError(
                "The file has no name: give one with ?name=train.tsv; its ending tells the format.",
                field="name",
                code="missing_field",
            )
        manager = acting_store(request).write_file(
            sender.tenant,
            name,
            created_by=sender.created_by,
            made_by=sender.key,
            max_bytes=sender.max_bytes,
        )
        async with _incoming(library, manager, sender.max_bytes, share) as incoming:
            await incoming.write(first)
            async for piece in pieces:
                await incoming.write(piece)
            return await incoming.commit(purpose(True))


async def _pieces(
    request: Request, form: Form | None, max_bytes: int, parts: Mapping[str, bytearray]
) -> AsyncGenerator[bytes, None]:
    """The file's bytes. The first of them come once its name is known. The other parts of a form are put
    into `parts`."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > max_bytes + (_FORM_BYTES if form else 0):
            raise _too_large(max_bytes)
        if form is None:
            yield chunk
            continue
        for name, piece in form.feed(chunk):
            if name not in parts:
                yield piece
            elif len(parts[name]) + len(piece) > _PART_BYTES:
                raise InvalidInputError(f"It has more than {_PART_BYTES} bytes.", field=name)
            else:
                parts[name].extend(piece)
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

    async def commit(self, purpose: FilePurpose) -> DataFile:
        await self._flush()
        self._writer.purpose = purpose
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
        return await asyncio.shield(call)  # even a cancelled upload waits for its thread; see `_leave`


@asynccontextmanager
async def _incoming(
    library: PromptLibrary, manager: AbstractContextManager[FileWriter], max_bytes: int, share: BodyShare
) -> AsyncIterator[_Incoming]:
    """The writer. It is closed however the block ends, even if the upload is cancelled."""
    writer = await library.take(manager.__enter__, lambda _: _close(manager))
    incoming = _Incoming(library, writer, max_bytes, share)
    try:
        yield incoming
    finally:
        await asyncio.shield(_leave(incoming, manager))


async def _leave(incoming: _Incoming, manager: AbstractContextManager[FileWriter]) -> None:
    """Close it outside the store's threads, which may refuse; wait for the last call first, so no thread
    still writes."""
    if incoming.call is not None:
        await asyncio.wait([incoming.call])
    await asyncio.to_thread(_close, manager)


def _close(manager: AbstractContextManager[FileWriter]) -> None:
    manager.__exit__(None, None, None)


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(
        f"The file is larger than {most} bytes, which is the limit: send less, or split it.", field="file"
    )
