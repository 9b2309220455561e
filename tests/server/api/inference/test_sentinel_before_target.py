"""A prompt that was tuned with a sentinel before every target is served with one."""

from __future__ import annotations

import json

import pytest

from chorus_server.engine.fake_executor import checksum, prompt_symbol
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, artifact, error_of

SETTINGS = json.dumps({"sentinel_before_target": True, "max_new_tokens": 1})
LABELS = ["yes", "no"]


def _expected(vocabulary: Vocabulary, digest: str, text: str, label: str, sentinel: bool) -> float:
    symbols = [*(prompt_symbol(digest, row) for row in range(3)), *vocabulary.encode(text), vocabulary.eos_id]
    start = [vocabulary.sentinel(0)] if sentinel else []
    target = sum([*start, *vocabulary.encode(label), vocabulary.eos_id])
    return -((checksum(symbols) + target) % 1000) / 100


@pytest.mark.parametrize("sentinel", [True, False])
def test_labels_are_ranked_after_the_sentinel(api: ApiServer, vocabulary: Vocabulary, sentinel: bool) -> None:
    task = f"sentinel-{sentinel}".lower()
    settings = {"settings": SETTINGS} if sentinel else {}
    made = api.push(task, labels=LABELS, seed=8, **settings)
    body = {"task": task, "input": "is it warm"}
    scores = api.post("/v1/classify", body).json()["results"][0]["log_probabilities"]
    for label in LABELS:
        expected = _expected(vocabulary, made["digest"], "is it warm", label, sentinel)
        assert scores[label] == pytest.approx(expected)


def test_votes_of_members_with_and_without_are_each_their_own(api: ApiServer, vocabulary: Vocabulary) -> None:
    one = api.push("vote-with", labels=LABELS, seed=1, settings=SETTINGS)
    other = api.push("vote-without", labels=LABELS, seed=2)
    body = {"tasks": ["vote-with", "vote-without"], "input": "good"}
    members = api.post("/v1/ensemble", body).json()["results"][0]["members"]
    for member, made, sentinel in zip(members, (one, other), (True, False), strict=True):
        expected = _expected(vocabulary, made["digest"], "good", member["answer"], sentinel)
        assert member["log_probability"] == pytest.approx(expected)


def test_generation_has_room_for_the_sentinel_beside_the_tokens_asked_for(api: ApiServer) -> None:
    api.push("long-with", seed=3, settings=SETTINGS)
    api.push("long-without", seed=3, settings=json.dumps({"max_new_tokens": 1}))
    used = {
        task: max(
            result["usage"]["output_tokens"]
            for result in api.post("/v1/generate", {"task": task, "inputs": list("abcdefgh")}).json()[
                "results"
            ]
        )
        for task in ("long-with", "long-without")
    }
    assert used == {"long-with": 2, "long-without": 1}


def test_the_setting_is_a_truth_value(api: ApiServer) -> None:
    answer = api.http.post(
        "/v1/tasks/bad/versions",
        content=artifact(),
        headers={"content-type": "application/octet-stream"},
        params={"settings": json.dumps({"sentinel_before_target": "yes"})},
    )
    assert answer.status_code == 400
    assert error_of(answer)["field"] == "settings.sentinel_before_target"
