"""Models listed in pages, shown by every name, and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, error_of


@pytest.fixture
def stored(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, vocabulary, decision_models=["gpt-4o=b"]) as api:
        for name in ("d", "b", "c"):
            api.push(name, labels=["good", "bad"])
        for name in ("a", "c"):
            body = {"questions": {"q": {"task": "d"}}}
            assert api.post(f"/v1/packs/{name}/versions", body).status_code == 201
        yield api


def ids(api: ApiServer, **query: Any) -> tuple[list[str], bool]:
    answer = api.http.get("/openai/v1/models", params=query)
    assert answer.status_code == 200, answer.text
    listed = answer.json()
    assert [each["id"] for each in listed["data"]] == [each["name"] for each in listed["models"]]
    return [each["id"] for each in listed["data"]], listed["has_more"]


def test_a_list_and_its_pages(stored: ApiServer) -> None:
    every = ["gpt-4o", "base", "a", "b", "c", "d"]
    assert ids(stored) == (every, False)
    for limit in (1, 2, 3, 5, 6):
        found: list[str] = []
        more, after = True, dict[str, str]()
        while more:
            page, more = ids(stored, limit=limit, **after)
            assert len(page) == limit or not more
            found, after = found + page, {"after": page[-1]}
        assert found == every
    assert ids(stored, after="bb") == (["c", "d"], False)  # deleted meanwhile
    answer = stored.http.get("/v1/models", params={"after": "No Name"})
    assert answer.status_code == 400 and error_of(answer)["field"] == "after", answer.text


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("gpt-4o", "default"),
        ("base", "default"),
        ("tiny", "default"),
        ("b", "default"),
        ("b@1", "default"),
        ("default%2Fb@1", "default"),
        ("default/b@live", "default"),
        ("a", "default"),
        ("a@1", "default"),
    ],
)
def test_one_model_by_every_name(stored: ApiServer, name: str, owner: str) -> None:
    shown = stored.http.get(f"/v1/models/{name}").json()
    assert (shown["id"], shown["object"]) == (name.replace("%2F", "/"), "model")
    assert shown["owned_by"] == owner and isinstance(shown["created"], int)


@pytest.mark.parametrize("name", ["nobody", "b@9", "b@prod", "acme%2Fb"])
def test_a_model_that_is_not_there(stored: ApiServer, name: str) -> None:
    for method in ("GET", "DELETE"):
        answer = stored.http.request(method, f"/v1/models/{name}")
        assert answer.status_code == (400 if (method, name) == ("DELETE", "b@prod") else 404)
        assert error_of(answer)["message"]


def test_a_version_a_task_and_a_tasks_only_version_are_deleted(stored: ApiServer) -> None:
    stored.push("b", seed=1)
    answer = stored.http.delete("/openai/v1/models/b@2")
    assert answer.json() == {"id": "b@2", "object": "model", "deleted": True}
    assert stored.http.get("/v1/tasks/b/versions/2").status_code == 404
    assert stored.http.get("/v1/tasks/b/versions/1").status_code == 200
    assert stored.http.delete("/v1/models/b@1").status_code == 200  # its only one: live names it
    assert stored.http.get("/v1/tasks/b").status_code == 404
    assert stored.push("b", seed=2)["version"] == 3
    stored.push("b", seed=3)
    assert stored.http.delete("/v1/models/b").status_code == 200
    assert stored.http.get("/v1/tasks/b").status_code == 404


def test_what_is_in_use_stays(stored: ApiServer) -> None:
    stored.push("c", seed=1)
    live = stored.http.delete("/v1/models/c@1")
    assert (live.status_code, live.headers["x-should-retry"]) == (409, "false")
    in_a_pack = stored.http.delete("/v1/models/d@1")
    assert in_a_pack.status_code == 409
    assert stored.http.get("/v1/tasks/d").status_code == 200


@pytest.mark.parametrize("name", ["gpt-4o", "base", "tiny", "b@live"])
def test_what_is_no_version_is_not_deleted(stored: ApiServer, name: str) -> None:
    answer = stored.http.delete(f"/v1/models/{name}")
    assert (answer.status_code, error_of(answer)["field"]) == (400, "model")
    assert stored.http.get("/v1/tasks/b").status_code == 200
