"""A real server under fifty clients ends on SIGTERM: each item it took has one row of usage, also where the
database was away at the time."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.metrics import UsageMetrics
from chorus_server.tenancy.usage import recorder_of
from prompts_store.database import EVERY_TENANT
from prompts_store.database.usage_tables import usage
from prompts_store.store import PromptStore
from tests.end_to_end.drained import Ended, end, patient, served_clients
from tests.end_to_end.served import TINY
from tests.server.api.api_harness import eventually

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals as on Linux"),
    pytest.mark.usefixtures("compiled_quickly"),
]

WORDS = {"ok": "answered", "cancelled": "cancelled"}
_WRITES_ALL = """
from chorus_server import process
from chorus_server.tenancy.usage import UsageRecorder
process._CLOSE_SECONDS, UsageRecorder.close.__defaults__ = 60.0, (60.0,)
"""
"""Its end waits for the database, however busy the machine: else the next start would write the rest."""
_NEVER_SAVES = """
from chorus_server.tenancy.usage import UsageRecorder
UsageRecorder.save = lambda self: None
from chorus_server.cli import serve
serve()
"""


@pytest.fixture
def options(tiny_model: Path, compile_cache: Path) -> dict[str, Any]:
    return {"model": tiny_model, "compile_cache_dir": compile_cache} | TINY


def journalled(ended: Ended) -> Counter[tuple[str, int, str]]:
    """Request id, item and outcome of each item that the engine took, by its journal."""
    named = [(*name.rsplit(".", 2)[:2], outcome) for name, outcome in ended.outcomes.items()]
    return Counter((call, int(item), WORDS.get(outcome, "failed")) for call, item, outcome in named)


def counted(folder: Path, *, replay: bool = False) -> Counter[tuple[str, int, str]]:
    """The same by the rows in the database, after what a next start would add."""
    with closing(PromptStore.open(folder)) as store:
        if replay:
            recorder = recorder_of(store, folder, UsageMetrics(MetricsRegistry()))
            recorder.start()
            recorder.close(300)
        with store._database.read(EVERY_TENANT) as connection:
            rows = connection.execute(select(usage.c.request_id, usage.c.item, usage.c.outcome))
            return Counter((request, item, outcome) for request, item, outcome in rows)


@pytest.mark.parametrize("away", [False, True])
def test_sigterm_loses_no_row(tmp_path: Path, options: dict[str, Any], away: bool) -> None:
    with served_clients(tmp_path, **patient("" if away else _WRITES_ALL), **options) as (server, clients):
        lock = closing(sqlite3.connect(tmp_path / "chorus.db", isolation_level=None))
        with lock if away else nullcontext() as database:
            if database is not None:
                database.execute("BEGIN IMMEDIATE")
                # Answers go on, and their rows wait in the spool.
                eventually(lambda: server.metric("chorus_usage_spool_bytes") > 0)
            ended = end(server, clients, tmp_path)
    assert ended.sound, ended
    taken = journalled(ended)
    assert taken and set(taken.values()) == {1}
    if away:
        assert counted(tmp_path) != taken, "the database was not away"
    assert counted(tmp_path, replay=away) == taken
    assert not list((tmp_path / "usage").glob("*"))


def test_control_a_server_that_never_saves_loses_rows(tmp_path: Path, options: dict[str, Any]) -> None:
    command = [sys.executable, "-c", _NEVER_SAVES]
    with served_clients(tmp_path, command=command, **options) as (server, clients):
        ended = end(server, clients, tmp_path)
    assert journalled(ended) and not counted(tmp_path)
