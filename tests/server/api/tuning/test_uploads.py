"""An upload that is cancelled: its writer is left after the thread that still writes, never under it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest

from chorus_server.api.http.bodies import BodyBudget, BodyShare
from chorus_server.api.http.offload import Offload
from chorus_server.api.tuning import uploads
from chorus_server.api.tuning.uploads import BUFFER_BYTES, _incoming

MOST = 2 * BUFFER_BYTES


def share() -> BodyShare:
    return BodyShare(BodyBudget(1 << 30), "a tenant")


class Library:
    """Threads, and no store."""

    def __init__(self) -> None:
        self.threads = Offload(1, 8, "threads")

    async def save(self, function: Callable[[], Any]) -> Any:
        return await self.threads.run(function)

    async def take(self, function: Callable[[], Any], release: Callable[[Any], None]) -> Any:
        return await self.threads.acquire(function, release)


class Writer:
    """Writes when it is let, and notes in which order things happened."""

    def __init__(self) -> None:
        self.writing = threading.Event()
        self.let = threading.Event()
        self.happened: list[str] = []

    def write(self, content: bytes) -> None:
        self.writing.set()
        assert self.let.wait(300)
        self.happened.append("written")

    @contextmanager
    def manager(self) -> Any:
        try:
            yield self
        finally:
            self.happened.append("left")
            self.let.set()


async def cancelled_while_it_writes(writer: Writer, *, let_go: bool) -> None:
    library = Library()

    async def upload() -> None:
        async with _incoming(library, writer.manager(), MOST, share()) as incoming:  # type: ignore[arg-type]
            await incoming.write(b"x" * BUFFER_BYTES)

    task = asyncio.create_task(upload())
    assert await asyncio.to_thread(writer.writing.wait, 300)
    task.cancel()
    if let_go:
        writer.let.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    library.threads.close()


def test_a_cancelled_upload_is_left_after_its_write() -> None:
    writer = Writer()
    asyncio.run(cancelled_while_it_writes(writer, let_go=True))
    assert writer.happened == ["written", "left"]


def test_left_at_once_it_would_be_closed_under_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""

    async def at_once(incoming: Any, manager: Any) -> None:
        await asyncio.to_thread(uploads._close, manager)

    monkeypatch.setattr(uploads, "_leave", at_once)
    writer = Writer()
    asyncio.run(cancelled_while_it_writes(writer, let_go=False))
    assert writer.happened == ["left", "written"]


def test_a_full_pool_refuses_no_upload_its_end() -> None:
    """The store's threads may refuse calls; what was written must be left all the same."""
    writer = Writer()
    writer.let.set()

    async def run() -> None:
        library = Library()
        async with _incoming(library, writer.manager(), MOST, share()):  # type: ignore[arg-type]
            library.threads._waiting = 0
        library.threads.close()

    asyncio.run(run())
    assert writer.happened == ["left"]
