"""Evaluations."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from chorus.types.base import Wire
from chorus.types.tuning import AnyJob


class EvaluationSummary(AnyJob):
    """An evaluation as a list shows it.

    Attributes:
        subjects: what it evaluates, each `{"task": ...}`, `{"ensemble": ...}`,
            `{"pack": ..., "question": ...}` or `{"base": {...}}`.
        progress: how far it is: `rows` of `rows_in_all`.
    """

    subjects: list[dict[str, Any]] = Field(default_factory=list)


class Evaluation(EvaluationSummary):
    """An evaluation.

    Attributes:
        spec: the document with every default filled in, and its references pinned.
        result: `rows`, `subjects` with metrics, confusion matrix, share of legal answers and reliability,
            `comparisons` with the first subject, and `predictions`, the id of a file; once it has succeeded.
    """

    spec: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)


class EvaluationPage(Wire):
    """Part of the list of evaluations, newest first."""

    evaluations: list[EvaluationSummary]
    next_cursor: str | None = None
