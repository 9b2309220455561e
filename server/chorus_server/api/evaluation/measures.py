"""What an evaluation measures beside the metrics: confusion, legal answers, reliability. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from chorus_server.calibration.measuring import risk_coverage
from chorus_server.quality.metrics import legal_share, measure
from chorus_server.quality.mistakes import MOST_CONFUSED, confused, confusion_matrix
from chorus_server.quality.text_metrics import Answers

DIGITS = 4
"""To which what was said is rounded."""

BINS_OF_CONFIDENCE = 15
"""Of equal width (Naeini et al. 2015)."""


def measured(
    metrics: Sequence[str],
    predictions: Sequence[str],
    confidences: Sequence[float],
    answers: Answers,
    labels: Sequence[str],
    columns: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """All that is measured of one subject.

    Args:
        metrics: of tuning; `mean` of them is added, as there.
        predictions, confidences: one a row.
        answers: accepted answers of each row, the target first.
        labels: empty for free text.
        columns: each row's value, by what it is; see `measure`.
    """
    right = [
        said.strip() in {each.strip() for each in known}
        for said, known in zip(predictions, answers, strict=True)
    ]
    return {
        "metrics": measure(metrics, predictions, answers, labels, columns),
        "legal": legal_share(predictions, labels) if labels else None,
        "confusion": confusion(predictions, answers, labels) if 0 < len(labels) <= MOST_CONFUSED else None,
        "reliability": reliability(confidences, right),
    }


def calibrate_on_rows(said: Sequence[dict[str, Any]], labels: Sequence[str]) -> None:
    """Batch calibration (Zhou et al. 2023): take from each label's log probability its mean over the rows,
    and answer anew. Changes `said`, `confidence` and `log_probabilities` of each line.

    Args:
        said: what a subject that ranks labels said to each row, as `Said.document` has it.
    """
    scores = np.array([each["log_probabilities"] for each in said], np.float64)
    scores -= scores.mean(axis=0)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    for each, row, share in zip(said, scores.tolist(), shares, strict=True):
        place = int(share.argmax())
        each["said"], each["confidence"] = labels[place], round(float(share[place]), DIGITS)
        each["log_probabilities"] = [round(value, DIGITS) for value in row]


def confusion(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> dict[str, Any]:
    """See `confusion_matrix`."""
    return confusion_matrix(confused(predictions, answers, labels), labels)


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    """Whether confidence is how often an answer is right: `ece`, the mean distance of the two, weighted by
    rows, over bins of equal width, the bins that have rows, and how much can be answered at a wanted
    accuracy."""
    groups: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, right, strict=True):
        place = min(int(confidence * BINS_OF_CONFIDENCE), BINS_OF_CONFIDENCE - 1)
        groups.setdefault(place, []).append((confidence, hit))
    bins = []
    for place in sorted(groups):
        group = groups[place]
        bins.append(
            {
                "from": place / BINS_OF_CONFIDENCE,
                "to": (place + 1) / BINS_OF_CONFIDENCE,
                "rows": len(group),
                "confidence": sum(confidence for confidence, _ in group) / len(group),
                "accuracy": sum(hit for _, hit in group) / len(group),
            }
        )
    distances = (each["rows"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    points = [asdict(point) for point in risk_coverage(confidences, right)]
    return {"ece": sum(distances) / len(right), "bins": bins, "risk_coverage": points}
