"""Probabilities that a calibration corrects: in classify, in votes, and where it does not serve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chorus_server.model.vocabulary import Vocabulary
from prompts_store.testing import example_calibration
from tests.server.api.api_harness import ApiServer, eventually

LABELS = ["no", "yes"]


@pytest.fixture
def api(tmp_path: Path, vocabulary: Vocabulary) -> Iterator[ApiServer]:
    with ApiServer(tmp_path, vocabulary) as server:
        server.push("t", labels=LABELS)
        yield server


def classified(api: ApiServer, **body: Any) -> dict[str, Any]:
    answer = api.post("/v1/classify", {"task": "t", "input": "good", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["results"][0]
    return found


def ratio(result: dict[str, Any]) -> float:
    shares = result["probabilities"]
    return math.log(shares["yes"] / shares["no"])


def test_the_newest_serves_and_the_answer_names_it(api: ApiServer) -> None:
    raw = classified(api)
    assert (raw["calibrated"], raw["calibration"]) == (False, None)
    scores = raw["log_probabilities"]
    distance = scores["yes"] - scores["no"]
    assert ratio(raw) == pytest.approx(distance)

    # Through the store, as another process would: the change feed tells.
    api.store.calibrate("default", "t", 1, example_calibration(4.0))
    eventually(lambda: classified(api)["calibrated"])
    warm = classified(api)
    assert warm["calibration"] == 1 and ratio(warm) == pytest.approx(distance / 4)
    assert warm["log_probabilities"] == scores and warm["label"] == raw["label"]

    prior = (5 * distance, -5 * distance)
    api.store.calibrate("default", "t", 1, example_calibration(2.0, prior=prior))
    eventually(lambda: classified(api)["calibration"] == 2)
    turned = classified(api)
    assert ratio(turned) == pytest.approx((distance + 10 * distance) / 2)
    assert turned["log_probabilities"] == scores


def test_a_prior_may_choose_another_label(api: ApiServer) -> None:
    raw = classified(api)
    own = LABELS.index(raw["label"])
    prior = tuple(50.0 if place == own else -50.0 for place in range(2))
    api.store.calibrate("default", "t", 1, example_calibration(1.0, prior=prior))
    eventually(lambda: classified(api)["calibrated"])
    found = classified(api)
    assert found["label"] == LABELS[1 - own] == max(found["probabilities"], key=found["probabilities"].get)


def test_the_order_of_the_labels_does_not_matter_and_other_labels_are_raw(api: ApiServer) -> None:
    api.store.calibrate("default", "t", 1, example_calibration(3.0, prior=(0.5, -0.5)))
    eventually(lambda: classified(api)["calibrated"])
    own, turned = classified(api), classified(api, labels=LABELS[::-1])
    assert turned["calibrated"] and turned["probabilities"] == pytest.approx(own["probabilities"])
    other = classified(api, labels=["no", "yes", "maybe"])
    assert (other["calibrated"], other["calibration"]) == (False, None)
    assert classified(api, task=None, labels=LABELS)["calibrated"] is False


def test_one_that_was_fitted_with_other_matrices_does_not_serve(api: ApiServer) -> None:
    api.store.calibrate("default", "t", 1, example_calibration(3.0))
    eventually(lambda: classified(api)["calibrated"])
    api.store.calibrate("default", "t", 1, example_calibration(3.0, matrix_dtype="bfloat16"))
    eventually(lambda: not classified(api)["calibrated"])


def test_votes_go_as_before_and_tell_the_members_mean(api: ApiServer) -> None:
    api.push("u", seed=4, labels=LABELS)
    body = {"tasks": ["t", "u"], "input": "good", "weights": [3.0, 1.0]}

    def vote() -> dict[str, Any]:
        found: dict[str, Any] = api.post("/v1/ensemble", body).json()["results"][0]
        return found

    before = vote()
    assert before["calibrated"] is False
    for task in ("t", "u"):
        api.store.calibrate("default", task, 1, example_calibration(5.0))
    eventually(lambda: vote()["calibrated"])
    after = vote()
    for name in ("answer", "counts", "agreement"):
        assert after[name] == before[name]
    for then, now in zip(before["members"], after["members"], strict=True):
        assert (now["answer"], now["log_probability"]) == (then["answer"], then["log_probability"])
        assert (now["calibrated"], now["calibration"]) == (True, 1)
        assert now["probability"] <= then["probability"]
    alone = [classified(api, task=task)["probabilities"] for task in ("t", "u")]
    for label in LABELS:
        mean = (3 * alone[0][label] + alone[1][label]) / 4
        assert after["probabilities"][label] == pytest.approx(mean)
    # Members that answer freely have no probabilities to tell.
    api.push("w")
    free = api.post("/v1/ensemble", {"tasks": ["w"], "input": "good", "max_new_tokens": 3}).json()
    assert free["results"][0].get("probabilities") is None
