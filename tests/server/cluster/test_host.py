"""An engine beside the code that asks it, until the base is loaded; what it answers is in test_rows.py."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from chorus_server.api.upkeep import Upkeep
from chorus_server.app import App, build_app, close_app
from chorus_server.changes.reader import ChangeReader
from chorus_server.cluster import host
from chorus_server.process import upkept
from chorus_server.settings import Settings
from prompts_store.errors import StoreError


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(host, "bring_up", lambda *_, **__: None)
    return Settings(model="embedded", data_dir=tmp_path)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "chorus-host"]


def test_upkeep_is_left_to_servers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, a server, begins it."""
    begun: list[Upkeep] = []

    async def run(upkeep: Upkeep) -> None:
        begun.append(upkeep)

    async def serve(server: App) -> None:
        async with upkept(server):
            await asyncio.sleep(0)

    monkeypatch.setattr(Upkeep, "run", run)
    made = host.Host(settings)
    made.run(asyncio.sleep(0))
    made.close()
    assert not begun
    server = build_app(settings)
    asyncio.run(serve(server))
    assert begun == [server.services.upkeep]
    close_app(server)


def test_a_database_that_is_away_leaves_nothing_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Any) -> None:
        raise StoreError("away")

    closed: list[Any] = []
    honest = host.close_app
    monkeypatch.setattr(host, "close_app", lambda app: closed.append(app) or honest(app))
    host.Host(settings).close()
    assert len(closed) == 1 and not threads()
    monkeypatch.setattr(ChangeReader, "read", away)
    with pytest.raises(StoreError):
        host.Host(settings)
    assert len(closed) == 2 and not threads()
