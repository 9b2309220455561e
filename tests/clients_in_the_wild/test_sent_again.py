"""OpenAI's client sends a POST again when the connection breaks, and without a key: nothing is made twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from chorus_server.api.door.once import OnceAMinute
from chorus_server.model.vocabulary import Vocabulary
from tests.clients.lossy import lossy
from tests.clients_in_the_wild.asking import asked
from tests.server.api.api_harness import ApiServer
from tests.server.api.conftest import vocabulary
from tests.server.api.openai.files_tools import push

__all__ = ["vocabulary"]

ROWS = b'{"prompt": "a good film", "completion": "good"}\n' * 12


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("again"), vocabulary) as server:
        yield server


def count(api: ApiServer) -> int:
    lists = (api.store.list_files("default", limit=500), api.store.list_jobs("default", None, limit=500))
    return sum(len(page.items) for page in lists)


@pytest.mark.parametrize("remembers", [True, False], ids=["remembered", "control"])
@pytest.mark.parametrize("what", ["file", "job", "batch"])
def test_one_call_makes_one(
    openai_3: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch, what: str, remembers: bool
) -> None:
    monkeypatch.setattr(get_args(OnceAMinute)[1].dependency, "_unkeyed", remembers)
    purpose = "batch" if what == "batch" else "fine-tune"
    file = push(api, {"purpose": purpose}, ROWS + b"\n" * remembers, name="rows.jsonl").json()["id"]
    before = count(api)
    with lossy(api) as way:
        made = asked(openai_3, "openai_once.py", way.url, what, file)
        assert (way.posted, way.lost) == (2, 1)
    assert count(api) == before + (1 if remembers else 2)
    newest = api.store.list_files("default") if what == "file" else api.store.list_jobs("default", None)
    assert newest.items[0].id == made
