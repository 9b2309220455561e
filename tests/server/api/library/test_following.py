"""The change feed cannot be read, and all else of the database can: another program took its table away."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, error_of


def rename(api: ApiServer, old: str, new: str) -> None:
    with closing(sqlite3.connect(api.settings.data_dir / "chorus.db")) as other:
        other.execute(f"ALTER TABLE {old} RENAME TO {new}")


def read(api: ApiServer) -> bool:
    assert api.loop is not None
    return asyncio.run_coroutine_threadsafe(api.services.changes.read(), api.loop).result(300)


def ready(api: ApiServer) -> tuple[int, str, str | None]:
    answer = api.http.get("/readyz")
    body: dict[str, Any] = answer.json()
    return answer.status_code, body["status"], body.get("store", {}).get("status")


def test_while_the_feed_cannot_be_read_everything_is_looked_up_anew_and_readyz_says_so(
    tmp_path: Path, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus_server.api.library.store_health.SEEN_SECONDS", 0.0)
    with ApiServer(tmp_path, vocabulary, follows=False) as api:
        made = api.http.post("/v1/keys", json={"name": "k", "scopes": ["infer", "prompts:write"]}).json()
        api.http.headers["authorization"] = f"Bearer {made['key']}"
        api.push("t")
        body = {"task": "t", "input": "good film", "max_new_tokens": 2}
        assert read(api) and ready(api) == (200, "ready", None)
        rename(api, "changes", "hidden")
        assert not read(api)
        assert ready(api) == (200, "ready", "unfollowed")
        assert api.post("/v1/generate", body).status_code == 200
        # What cannot be followed is not trusted for longer than a second.
        for memory in (*api.services.callers._memories(), api.services.library._versions):
            memory._fresh_seconds = 0.0
        with closing(sqlite3.connect(tmp_path / "chorus.db")) as other, other:
            other.execute("UPDATE keys SET revoked_at = created_at")
        answer = api.post("/v1/generate", body)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "unauthenticated")
        monkeypatch.setattr("chorus_server.api.library.store_health.STALE_SECONDS", 0.0)
        assert ready(api) == (503, "store_unavailable", "unfollowed")
        rename(api, "hidden", "changes")
        assert read(api) and ready(api) == (200, "ready", None)
