from __future__ import annotations

from typing import Any

import pytest

from chorus_server.api.schemas.inference import EnsembleAnswer
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, error_of


@pytest.fixture(scope="module")
def members(api: ApiServer) -> list[str]:
    for index in range(3):
        api.push(f"voter-{index}", seed=index, labels=["negative", "positive"])
        api.push(f"writer-{index}", seed=10 + index)
    return [f"voter-{index}" for index in range(3)]


def vote(api: ApiServer, **body: Any) -> dict[str, Any]:
    answer = api.post("/v1/ensemble", body)
    assert answer.status_code == 200, answer.text
    EnsembleAnswer.model_validate(answer.json())
    (result,) = answer.json()["results"]
    assert isinstance(result, dict)
    return result


def test_members_that_share_labels_vote_by_ranking(api: ApiServer, members: list[str]) -> None:
    result = vote(api, tasks=members, input="good film")
    alone = [
        api.post("/v1/classify", {"task": task, "input": "good film"}).json()["results"][0]
        for task in members
    ]
    assert [member["answer"] for member in result["members"]] == [one["label"] for one in alone]
    said = [member["answer"] for member in result["members"]]
    assert said.count(result["answer"]) == max(said.count(label) for label in said)
    assert sum(result["counts"].values()) == 3
    assert result["ensemble"] is None


def test_members_without_labels_vote_by_greedy_text(api: ApiServer, members: list[str]) -> None:
    tasks = [f"writer-{index}" for index in range(3)]
    result = vote(api, tasks=tasks, input="good film", max_new_tokens=6)
    for task, member in zip(tasks, result["members"], strict=True):
        alone = api.post("/v1/generate", {"task": task, "input": "good film", "max_new_tokens": 6})
        assert member["answer"] == alone.json()["results"][0]["text"]


def test_all_members_share_one_batch(api: ApiServer, members: list[str], vocabulary: Vocabulary) -> None:
    text = "good"
    while len(vocabulary.encode(text)) < 11:  # little padding, so that the scheduler prefers one batch
        text += " x"
    vote(api, tasks=members, input=text)
    assert api.engine.wait_idle(300)
    before = api.engine.stats().steps
    vote(api, tasks=members, input=text)
    assert api.engine.wait_idle(300)
    # Three rows in the 4-row bucket are one step; one after the other they would be three.
    assert api.engine.stats().steps - before == 1


def test_weights_decide(api: ApiServer, members: list[str]) -> None:
    body = {"tasks": [f"writer-{index}" for index in range(3)], "input": "good film", "max_new_tokens": 6}
    said = [member["answer"] for member in vote(api, **body)["members"]]
    assert len(set(said)) == 3
    for heavy in range(3):
        weights = [1.0, 1.0, 1.0]
        weights[heavy] = 10.0
        result = vote(api, **body, weights=weights)
        assert result["answer"] == said[heavy]
        assert result["agreement"] == pytest.approx(10 / 12)


def test_a_stored_ensemble_keeps_its_members(api: ApiServer, members: list[str]) -> None:
    made = api.post("/v1/ensembles/panel/versions", {"tasks": members, "weights": [1, 2, 3]})
    assert made.status_code == 201, made.text
    before = vote(api, ensemble="panel", input="good film")
    api.push("voter-0", seed=99, labels=["negative", "positive"])
    assert api.http.put("/v1/tasks/voter-0/aliases/live", json={"version": 2}).status_code == 200
    assert vote(api, ensemble="panel", input="good film") == before
    assert before["ensemble"] == {"task": "default/panel", "version": 1}
    assert [member["weight"] for member in before["members"]] == [1, 2, 3]


def test_a_member_that_fails_does_not_vote(api: ApiServer, members: list[str]) -> None:
    gone = api.push("voter-gone", seed=77, labels=["negative", "positive"])
    next(api.settings.data_dir.rglob(f"*{gone['digest']}*")).write_bytes(b"damaged")
    result = vote(api, tasks=["voter-1", "voter-gone"], input="good film")
    assert result["members"][1]["error"]["code"] == "corrupt_blob"
    assert sum(result["counts"].values()) == 1
    alone = api.post("/v1/ensemble", {"tasks": ["voter-gone"], "input": "good film"})
    assert alone.status_code == 500 and error_of(alone)["code"] == "corrupt_blob"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"input": "x"}, 400, "tasks"),
        ({"tasks": ["voter-0"], "ensemble": "panel", "input": "x"}, 400, "tasks"),
        ({"tasks": [], "input": "x"}, 400, "tasks"),
        ({"tasks": ["voter-0", "nobody"], "input": "x"}, 404, "tasks.1"),
        ({"ensemble": "nobody", "input": "x"}, 404, "ensemble"),
        ({"tasks": ["voter-0"], "weights": [1, 2], "input": "x"}, 400, "weights"),
        ({"tasks": ["voter-0"], "weights": [0], "input": "x"}, 400, "weights.0"),
        ({"tasks": ["voter-0"] * 65, "input": "x"}, 400, "tasks"),
        ({"tasks": ["voter-0"], "vote": "mean", "input": "x"}, 400, "vote"),
        ({"tasks": ["voter-0"], "inputs": ["x"] * 2000}, 400, "inputs"),
    ],
)
def test_bad_bodies_are_named(
    api: ApiServer, members: list[str], body: dict[str, Any], status: int, field: str
) -> None:
    answer = api.post("/v1/ensemble", body)
    assert answer.status_code == status, answer.text
    assert error_of(answer)["field"] == field
