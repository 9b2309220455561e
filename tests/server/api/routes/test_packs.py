from __future__ import annotations

from typing import Any

import pytest

from chorus_server.api.schemas.prompts import AliasesAnswer, PackPage, PackVersionPage, StoredPack
from tests.server.api.api_harness import ApiServer, error_of


@pytest.fixture(scope="module")
def stocked(api: ApiServer) -> ApiServer:
    api.push("mood", labels=["good", "bad"])
    api.push("mood", seed=1, labels=["good", "bad"])
    api.push("plain", seed=2)
    return api


def questions(**values: Any) -> dict[str, Any]:
    return {"questions": {"happy": {"task": "mood", **values}}}


def test_a_pack_is_pinned_shown_moved_and_deleted(stocked: ApiServer) -> None:
    body = questions(values={"true": "good", "false": "bad"})
    made = stocked.post("/v1/packs/desk/versions", body)
    assert made.status_code == 201, made.text
    StoredPack.model_validate(made.json())
    assert made.json()["questions"]["happy"] == {
        "task": "default/mood",
        "version": 1,
        "values": {"true": "good", "false": "bad"},
    }
    assert stocked.post("/v1/packs/desk/versions", body).status_code == 200
    second = stocked.post("/v1/packs/desk/versions", {**body, "unknown_questions": "base"}).json()
    assert (second["version"], second["aliases"]) == (2, {"live": 1})
    moved = stocked.http.put("/v1/packs/desk/aliases/live", json={"version": 2}).json()
    assert moved == {"alias": "live", "version": 2, "previous": 1}
    assert stocked.http.get("/v1/packs/desk", params={"alias": "live"}).json()["version"] == 2
    assert stocked.http.get("/v1/packs/desk", params={"version": 1}).json()["unknown_questions"] == "refuse"
    assert stocked.http.get("/v1/packs").json()["packs"][0]["back"] == {"live": 1}
    late = stocked.http.put("/v1/packs/desk/aliases/live", json={"version": 1, "expected": 1})
    assert (late.status_code, error_of(late)["code"]) == (409, "alias_moved")
    assert error_of(stocked.post("/v1/packs/desk/rollback", {"version": 2}))["field"] == "version"
    back = stocked.post("/v1/packs/desk/rollback", {"version": 1, "expected": 2})
    assert back.json()["version"] == 1
    assert stocked.http.get("/v1/packs/desk").json()["back"] == {}
    stocked.http.put("/v1/packs/desk/aliases/next", json={"version": 2})
    assert stocked.http.delete("/v1/packs/desk/aliases/next").status_code == 204
    aliases = stocked.http.get("/v1/packs/desk/aliases").json()
    AliasesAnswer.model_validate(aliases)
    assert (aliases["aliases"], aliases["back"]) == ({"live": 1}, {})
    assert [move["version"] for move in aliases["history"]] == [1, 2, 1, 2, None]
    assert len(stocked.http.get("/v1/packs/desk/aliases?limit=2").json()["history"]) == 2
    versions = stocked.http.get("/v1/packs/desk/versions").json()
    PackVersionPage.model_validate(versions)
    assert [each["version"] for each in versions["versions"]] == [2, 1]
    page = stocked.http.get("/v1/packs").json()
    PackPage.model_validate(page)
    assert [pack["pack"] for pack in page["packs"]] == ["default/desk"]
    assert stocked.http.delete("/v1/tasks/mood").status_code == 409
    assert stocked.http.delete("/v1/packs/desk").status_code == 204
    assert error_of(stocked.http.get("/v1/packs/desk"))["code"] == "unknown_pack"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "questions"),
        ({"questions": {}}, "questions"),
        ({"questions": {"happy": {}}}, "questions.happy.task"),
        ({"questions": {"happy": {"task": "nothing"}}}, "questions.happy.task"),
        ({"questions": {"happy": {"task": "plain"}}}, "questions.happy"),
        (questions(values={"true": "fine"}), "questions.happy.values"),
        ({**questions(), "unknown_questions": "ask"}, "unknown_questions"),
        ({"questions": {f"q{i}": {"task": "mood"} for i in range(401)}}, "questions"),
    ],
)
def test_bad_packs_are_named(stocked: ApiServer, body: Any, field: str) -> None:
    answer = stocked.post("/v1/packs/bad/versions", body)
    assert answer.status_code in (400, 404)
    assert error_of(answer)["field"] == field


def test_grants_of_a_pack(stocked: ApiServer) -> None:
    stocked.post("/v1/packs/shared/versions", questions())
    given = stocked.http.put("/v1/packs/shared/grants/birch", json={"rights": ["infer", "read"]})
    assert given.json()["rights"] == ["infer", "read"]
    assert len(stocked.http.get("/v1/packs/shared/grants").json()["grants"]) == 1
    assert stocked.http.delete("/v1/packs/shared/grants/birch").status_code == 204
    assert stocked.http.delete("/v1/packs/shared").status_code == 204
