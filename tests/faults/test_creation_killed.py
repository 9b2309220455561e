"""A process that is killed while it makes something leaves the thing and its request's record, or neither."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from prompts_store import PromptStore
from prompts_store.records import Creation
from prompts_store.tenants.creations import MadeBefore
from prompts_store.testing import example_file
from tests.postgres_server import PostgresServer

ONCE = Creation("key", "sender", ("this",))

CHILD = """
import os, signal, sys
from functools import partial
from pathlib import Path
from prompts_store import PromptStore
from prompts_store.records import Creation
from prompts_store.tenants import creations
from prompts_store.testing import example_file

folder, url, when = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
require_new = creations.require_new

def die(*of, **how):
    remember = require_new(*of, **how)
    def remembered(made):
        if when == "remembered":
            remember(made)
        os.kill(os.getpid(), signal.SIGKILL)
    return remembered

def forgetful(*of, **how):
    # The broken variant: what is made is remembered in a transaction of its own.
    require_new(*of, **how)
    return lambda made: None

store = PromptStore.open(folder, database_url=url)
if when != "committed":
    creations.require_new = forgetful if when == "between" else die
example_file(store.creating(Creation("key", "sender", ("this",))), b"rows")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        yield server.emptied()


@pytest.mark.parametrize(
    ("when", "files"),
    [("made", 1), ("remembered", 1), ("committed", 1), pytest.param("between", 2, id="control")],
)
def test_whoever_sends_it_again_finds_one(tmp_path: Path, url: str, when: str, files: int) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path), url, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with closing(PromptStore.open(tmp_path, database_url=url or None)) as store:
        there = [file.id for file in store.list_files("acme").items]
        assert len(there) == (when in ("committed", "between"))
        try:
            made = example_file(store.creating(ONCE), b"rows").id
        except MadeBefore as before:
            made = before.made
        assert len(store.list_files("acme").items) == files
        assert made in there or when != "committed"
