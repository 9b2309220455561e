"""The store's tests run on all of its forms: SQLite and a folder, memory, PostgreSQL and a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.testing import FakeClock
from tests.postgres_server import PostgresServer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["disk", "memory", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[PromptStore]:
    """A fresh store, of each form."""
    if request.param == "disk":
        made = PromptStore.open(tmp_path / "data", clock=clock)
    elif request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        made = PromptStore.open(tmp_path / "data", database_url=server.emptied(), clock=clock)
    else:
        made = PromptStore.in_memory(clock=clock)
    yield made
    made.close()


@pytest.fixture
def disk_store(tmp_path: Path, clock: FakeClock) -> Iterator[PromptStore]:
    """A fresh store on disk, in `tmp_path / "data"`."""
    made = PromptStore.open(tmp_path / "data", clock=clock)
    yield made
    made.close()
