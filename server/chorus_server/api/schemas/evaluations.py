"""Answers of the routes of evaluations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from chorus_server.tuning.document.evaluation import EvaluationDocument, EvaluationSubject
from prompts_store.jobs.records import JobStatus


class EvaluationSummary(AnswerModel):
    """An evaluation in a list."""

    id: str
    status: JobStatus
    subjects: list[EvaluationSubject]
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None = Field(
        description="Why it failed: `code`, `message` and sometimes `field`."
    )
    progress: dict[str, Any] = Field(description="`rows` of `rows_in_all` are done.")
    cancel_requested: bool
    attempt: int = Field(description="How many times a process started to run it.")


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
