"""Answers of the routes of evaluations."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.schemas.documents.evaluation import EvaluationDocument, EvaluationSubject
from chorus_server.api.schemas.jobs import JobState


class EvaluationSummary(JobState):
    """An evaluation in a list."""

    subjects: list[EvaluationSubject]
    progress: dict[str, Any] = Field(description="`rows` of `rows_in_all` are done.")


class EvaluationAnswer(EvaluationSummary):
    """An evaluation."""

    spec: EvaluationDocument = Field(
        description="The document with every default filled in, and its references pinned."
    )
    result: dict[str, Any] = Field(
        description="Metrics, confusion matrix, share of legal answers and reliability of each subject, "
        "comparisons with the first, and the id of the file of predictions, once it has succeeded."
    )


class EvaluationPage(AnswerModel):
    """Evaluations, newest first."""

    evaluations: list[EvaluationSummary]
    next_cursor: str | None
