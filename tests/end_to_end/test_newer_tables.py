"""A server that is started again in the middle of a rolling update: a newer Chorus has changed the tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.end_to_end.served import TINY, Served
from tests.newer_store import NEWEST, with_migration
from tests.places import ROOT
from tests.postgres_server import PostgresServer

OPERATOR = "an-operator-of-tests-0123456789"
_OPEN = "import sys; from pathlib import Path; from prompts_store.database import Database; "
_OPEN += "Database.open(Path(sys.argv[1]), sys.argv[2]).close()"


def newer_tables(folder: Path, url: str, revision: str) -> None:
    """As `chorus store migrate` of newer code does it."""
    code = folder / "newer"
    kept = shutil.ignore_patterns("__pycache__", "migrations")
    shutil.copytree(ROOT / "prompts_store", code / "prompts_store", ignore=kept)
    with_migration(code / "prompts_store" / "migrations", revision)
    command = [sys.executable, "-P", "-c", _OPEN, str(folder / "data"), url]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(code)}, check=True, timeout=300)


@pytest.mark.parametrize("serves", [True, False])
def test_an_older_server_comes_up_on_tables_that_still_serve_it(
    tmp_path: Path, tiny_model: Path, compile_cache: Path, postgres_server: PostgresServer, serves: bool
) -> None:
    """Control: on others it does not start, and says why."""
    url, key = postgres_server.create(), tmp_path / "operator"
    key.write_text(OPERATOR)
    (tmp_path / "data").mkdir()
    newer_tables(tmp_path, url, f"9999_serves_{NEWEST}" if serves else f"9999_serves_{int(NEWEST) + 1:04}")
    options: dict[str, Any] = {"model": tiny_model, "database_url": url, "operator_key_file": key}
    with Served(tmp_path / "data", compile_cache_dir=compile_cache, **options, **TINY) as server:
        if not serves:
            assert server.process.wait(300) == 1
            server._reader.join(300)
            assert "newer version of Chorus" in "\n".join(server.lines)
            return
        url = server.wait_listening()  # what follows needs no model
        headers = {"authorization": f"Bearer {OPERATOR}"}
        with httpx2.Client(base_url=url, headers=headers, timeout=300) as http:
            assert http.post("/v1/tenants", json={"name": "acme"}).status_code == 201
            body = {"name": "k", "scopes": ["infer"]}
            assert http.post("/v1/keys", params={"tenant": "acme"}, json=body).status_code == 201
            assert [task["name"] for task in http.get("/v1/tasks").json()["tasks"]] == []
    assert any("newer Chorus" in line for line in server.lines)
