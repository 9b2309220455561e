from __future__ import annotations

import math
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest

from chorus_server.api.inference import turns
from chorus_server.api.inference.ranking import score_requests
from chorus_server.api.routes import classify
from chorus_server.api.schemas.inference import ClassifyAnswer
from chorus_server.calibration.applying import softmax
from chorus_server.model.vocabulary import Vocabulary
from tests.server.api.api_harness import ApiServer, counted, error_of


def test_labels_of_the_version_are_ranked(api: ApiServer) -> None:
    api.push("sentiment", labels=["negative", "positive"])
    answer = api.post("/v1/classify", {"task": "sentiment", "inputs": ["good", "a waste"]})
    assert answer.status_code == 200, answer.text
    ClassifyAnswer.model_validate(answer.json())
    for result in answer.json()["results"]:
        scores = result["log_probabilities"]
        assert list(scores) == ["negative", "positive"]
        assert result["label"] == max(scores, key=scores.__getitem__)
        assert sum(result["probabilities"].values()) == pytest.approx(1)
        ratio = result["probabilities"]["positive"] / result["probabilities"]["negative"]
        assert math.log(ratio) == pytest.approx(scores["positive"] - scores["negative"])
        assert result["usage"]["output_tokens"] == 0


def test_versions_of_other_tasks_are_asked_together(api: ApiServer) -> None:
    """Each answers as it does alone, with its own labels; all were one batch."""
    api.push("sentiment", labels=["negative", "positive"])
    api.push("answer", labels=["yes", "no", "maybe"])
    tasks = ["sentiment@1", "answer"]
    before = [counted(api, f"chorus_batch_rows_{what}", kind="score") for what in ("count", "sum")]
    together = api.post("/v1/classify", {"requests": [{"task": task, "input": "good"} for task in tasks]})
    after = [counted(api, f"chorus_batch_rows_{what}", kind="score") for what in ("count", "sum")]
    assert [after[0] - before[0], after[1] - before[1]] == [1, 2]
    alone = [api.post("/v1/classify", {"task": task, "input": "good"}) for task in tasks]
    assert together.json()["results"] == [answer.json()["results"][0] for answer in alone]
    assert set(together.json()["results"][1]["probabilities"]) == {"yes", "no", "maybe"}


def test_other_requests_go_on_between_the_labels_of_many_versions(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels of each take 4 ms here, so that after every second version there is a pause."""
    for number in range(6):
        api.push(f"task{number}", labels=["yes", "no"])
    now, pauses = 0.0, 0

    async def slow(*given: Any, **named: Any) -> Any:
        nonlocal now
        now += 0.004
        return await score_requests(*given, **named)

    async def sleep(seconds: float) -> None:
        nonlocal pauses
        pauses += 1

    monkeypatch.setattr(classify, "score_requests", slow)
    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(turns, "asyncio", SimpleNamespace(sleep=sleep))
    requests = [{"task": f"task{number}", "input": "good"} for number in range(6)]
    assert api.post("/v1/classify", {"requests": requests}).status_code == 200
    assert pauses == 3


def test_a_version_without_labels_is_named(api: ApiServer) -> None:
    api.push("sentiment", labels=["negative", "positive"])
    requests = [{"task": "sentiment", "input": "good"}, {"task": None, "input": "good"}]
    refused = api.post("/v1/classify", {"requests": requests})
    assert "requests.1.task" in error_of(refused)["message"]


def test_labels_beside_requests_are_for_all_of_them(api: ApiServer) -> None:
    api.push("sentiment", labels=["negative", "positive"])
    requests = [{"task": "sentiment", "input": "good"}, {"task": None, "input": "good"}]
    answer = api.post("/v1/classify", {"requests": requests, "labels": ["a", "b"]})
    assert [set(each["probabilities"]) for each in answer.json()["results"]] == [{"a", "b"}] * 2


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"input": "x"}, 400, "task"),
        ({"requests": []}, 400, "requests"),
        ({"requests": [{"task": "here", "input": "x"}], "input": "x"}, 400, "requests"),
        ({"requests": [{"task": "here", "input": "x"}], "task": "here"}, 400, "task"),
        ({"requests": [{"task": "here", "input": "x"}, {"input": "x"}]}, 400, "requests.1.task"),
        (
            {"requests": [{"task": "here", "input": "x"}, {"task": "gone", "input": "x"}]},
            404,
            "requests.1.task",
        ),
        (
            {"requests": [{"task": "here", "input": "x"}, {"task": "here", "input": 5}]},
            400,
            "requests.1.input",
        ),
        ({"requests": [{"task": "here", "input": "x"}, {"task": None, "input": "x"}]}, 400, "labels"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(
    api: ApiServer, body: dict[str, Any], status: int, field: str
) -> None:
    api.push("here", labels=["yes", "no"])
    answer = api.post("/v1/classify", body)
    assert (answer.status_code, error_of(answer)["field"]) == (status, field)


def test_scores_are_of_the_label_with_its_end_token(api: ApiServer, vocabulary: Vocabulary) -> None:
    text, labels = "is it warm", ["yes", "no"]
    answer = api.post("/v1/classify", {"task": None, "input": text, "labels": labels}).json()
    symbols = [*vocabulary.encode(text), vocabulary.eos_id]
    checksum = sum((at + 1) * symbol for at, symbol in enumerate(symbols)) % 1_000_003
    for label in labels:
        target = sum([*vocabulary.encode(label), vocabulary.eos_id])
        expected = -((checksum + target) % 1000) / 100
        assert answer["results"][0]["log_probabilities"][label] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({}, "labels"),
        ({"labels": ["one"]}, "labels"),
        ({"labels": ["yes", ""]}, "labels.1"),
        ({"labels": ["yes", "   "]}, "labels.1"),
        ({"labels": ["yes", "yes"]}, "labels.1"),
        ({"labels": ["yes", "good film " * 20]}, "labels.1"),
        ({"labels": [f"label {i}" for i in range(300)]}, "labels"),
        ({"labels": ["yes", "no"], "temperature": 1}, "temperature"),
        ({"labels": ["yes", "no"], "inputs": ["x"]}, "input"),
    ],
)
def test_bad_labels_are_named(api: ApiServer, extra: dict[str, Any], field: str) -> None:
    answer = api.post("/v1/classify", {"task": None, "input": "good", **extra})
    assert answer.status_code == 400
    assert error_of(answer)["field"] == field


def test_labels_that_are_too_many_and_too_long_together_are_refused(
    api: ApiServer, vocabulary: Vocabulary
) -> None:
    """Trees have at most 8 nodes here, and a request's targets at most 128 trees."""
    words = ["".join(letters) for letters in permutations("abcdefgh", 6)][::40]
    labels = [word for word in words if len(vocabulary.encode(word)) < 8][:256]
    answer = api.post("/v1/classify", {"task": None, "input": "good", "labels": labels})
    assert answer.status_code == 400, len(labels)
    error = error_of(answer)
    assert error["field"] == "labels" and "send fewer or shorter ones" in error["message"]
    assert api.post("/v1/classify", {"task": None, "input": "good", "labels": labels[:40]}).status_code == 200


def test_softmax_of_extremes() -> None:
    assert softmax([-1e4, -1e4]) == [0.5, 0.5]
    assert softmax([-math.inf, -1.0]) == [0.0, 1.0]
    assert softmax([-math.inf, -math.inf]) == [0.5, 0.5]
