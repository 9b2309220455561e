"""What is measured beside the metrics, on rows that can be counted by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from chorus_server.api.evaluation.measures import calibrate_on_rows, confusion, measured, reliability
from chorus_server.quality.metrics import METRICS, legal_share, measure

LABELS = ["no", "yes"]
ANSWERS = [("no",), ("yes",), ("yes",), ("no",), ("yes",)]
SAID = ["no", "yes ", "no", "maybe", "yes"]


def test_metrics_are_those_of_tuning() -> None:
    names = [name for name in METRICS if name not in ("pearson", "spearman")]
    found = measured(names, SAID, [1.0] * 5, ANSWERS, LABELS, {})
    assert found["metrics"] == measure(names, SAID, ANSWERS, LABELS)
    numbers = measured(["pearson"], ["1", "x", "3"], [1.0] * 3, [("2",), ("1",), ("4",)], (), {})
    assert numbers["metrics"] == measure(["pearson"], ["1", "x", "3"], [("2",), ("1",), ("4",)])
    assert numbers["legal"] is None and numbers["confusion"] is None


def test_confusion_and_legal_answers() -> None:
    assert confusion(SAID, ANSWERS, LABELS) == {"labels": LABELS, "counts": [[1, 0, 1], [1, 2, 0]]}
    assert legal_share(SAID, LABELS) == 0.8
    many = [str(n) for n in range(129)]
    assert measured(["accuracy"], ["0"], [1.0], [("0",)], many, {})["confusion"] is None
    assert measured(["accuracy"], ["0"], [1.0], [("0",)], many[:128], {})["confusion"] is not None


def test_batch_calibration_takes_what_a_label_always_has() -> None:
    scores = [[-1.0, -3.0], [-1.5, -2.0], [-0.5, -4.0]]  # always "no"; less the means -1 and -3, not in row 2
    said = [{"said": "no", "confidence": 0.9, "log_probabilities": row, "truncated": True} for row in scores]
    calibrate_on_rows(said, LABELS)
    assert [each["said"] for each in said] == ["no", "yes", "no"], "equal ones: the first"
    assert [each["log_probabilities"] for each in said] == [[0.0, 0.0], [-0.5, 1.0], [0.5, -1.0]]
    assert said[1]["confidence"] == round(1 / (1 + math.exp(-1.5)), 4) and said[1]["truncated"] is True


def test_reliability_is_the_expected_calibration_error() -> None:
    chance = np.random.default_rng(7)
    confidences = chance.uniform(size=500)
    right = chance.uniform(size=500) < confidences**2
    found = reliability(confidences.tolist(), right.tolist())
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        some = (confidences >= low) & (confidences < high)
        if some.any():
            expected += some.mean() * abs(confidences[some].mean() - right[some].mean())
    assert found["ece"] == pytest.approx(expected)
    assert sum(each["rows"] for each in found["bins"]) == 500
    assert reliability([1.0, 0.0], [True, False])["ece"] == 0.0


def test_how_much_can_be_answered_at_a_wanted_accuracy() -> None:
    confidences, right = [0.9, 0.9, 0.8, 0.7, 0.6], [True, True, False, True, True]
    found = {each["accuracy"]: each for each in reliability(confidences, right)["risk_coverage"]}
    assert found[0.8] == {"accuracy": 0.8, "coverage": 1.0, "confidence": 0.6}
    assert found[0.95] == {"accuracy": 0.95, "coverage": 0.4, "confidence": 0.9}
    assert reliability([0.9], [False])["risk_coverage"][0] == {
        "accuracy": 0.8, "coverage": 0.0, "confidence": None
    }  # fmt: skip
