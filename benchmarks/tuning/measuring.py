"""A split's answers become a result: metrics by seed, the ensemble's, and every prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.tuning.base import Base
from benchmarks.tuning.results import written
from benchmarks.tuning.rows import Rows
from benchmarks.tuning.statistics import majority
from chorus_server.quality.metrics import measure
from chorus_server.tuning.data.examples import TextRow
from chorus_server.tuning.training.initialisers import PromptValues

NO_LABEL = "(none)"


@dataclass(frozen=True)
class Answers:
    """Predictions of N members on R rows.

    Attributes:
        predictions: [N][R], places of labels, -1 for a text that is no label.
        confidence: [N, R] log probability of each answer; None for greedy text.
    """

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    truth: list[int]
    predictions: list[list[int]]
    confidence: PromptValues | None

    def document(self) -> dict[str, Any]:
        """For a result file; the ensemble where there are members enough to vote."""
        found: dict[str, Any] = {
            "labels": list(self.labels),
            "report_rows": len(self.truth),
            "report": [self._measured(member) for member in self.predictions],
            "truth": written(self.truth),
            "predictions": [written(member) for member in self.predictions],
        }
        if len(self.predictions) > 2:
            vote = majority(self.predictions, self.confidence)
            found["ensemble"] = {"report": self._measured(vote), "predictions": written(vote)}
        return found

    def _measured(self, places: Sequence[int]) -> dict[str, float]:
        names = [NO_LABEL if place < 0 else self.labels[place] for place in places]
        known = [(self.labels[place],) for place in self.truth]
        wanted = tuple(dict.fromkeys(("accuracy", *self.metrics)))
        found = measure(wanted, names, known, self.labels)
        return {name: round(value, 5) for name, value in found.items() if name != "mean"}


def measure_prompts(base: Base, rows: Rows, prompts: PromptValues | None, params: Any = None) -> Answers:
    """The tuned template on the report split, behind each prompt (or none: model tuning)."""
    return answers_on(base, rows, rows.report, prompts, params=params)


def answers_on(
    base: Base,
    rows: Rows,
    split: Sequence[TextRow],
    prompts: PromptValues | None = None,
    *,
    longest: int | None = None,
    greedy: bool | None = None,
    calibrated: bool = False,
    params: Any = None,
) -> Answers:
    """Answers of each prompt on some rows of a task.

    Args:
        calibrated: first take each label's mean log probability over the rows away, so that a word which is
            likely by itself does not win everywhere (batch calibration, Zhou et al. 2023). Uses no answer.
    """
    task = rows.task
    inputs = [base.ids(row.text, longest or task.long_text_tokens) for row in split]
    truth = [task.labels.index(row.answers[0]) for row in split]
    if task.greedy if greedy is None else greedy:
        texts = base.texts(prompts, inputs, 16)
        places = {label: place for place, label in enumerate(task.labels)}
        said = [[places.get(text.strip(), -1) for text in member] for member in texts]
        return Answers(task.labels, task.metrics, truth, said, None)
    labels = [base.ids(label, 64) for label in task.labels]
    scores = base.scores(prompts, inputs, labels, params)
    if calibrated:
        scores = scores - scores.mean(axis=1, keepdims=True)
    return Answers(
        task.labels, task.metrics, truth, scores.argmax(axis=2).tolist(), np.asarray(scores.max(axis=2))
    )
