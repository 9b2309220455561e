"""Answers of the native routes of batches."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from chorus_server.tuning.document.batch import BatchEndpoint
from prompts_store.jobs.records import JobStatus


class BatchAnswer(AnswerModel):
    """A batch."""

    id: str
    status: JobStatus
    endpoint: BatchEndpoint
    file: str
    metadata: dict[str, str]
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None = Field(
        description="Why it failed: `code`, `message` and sometimes `field`."
    )
    progress: dict[str, Any] = Field(
        description="`rows` of `rows_in_all` are answered, `failed` of them with an error; `faults` of the "
        "file, each with its `line`."
    )
    cancel_requested: bool
    attempt: int = Field(description="How many times a process started to run it.")
    result: dict[str, Any] = Field(
        description="`rows`, `failed`, the ids `output_file` and `error_file` (null where there is none) and "
        "`usage`, once it has succeeded."
    )


class BatchPage(AnswerModel):
    """Batches, newest first."""

    batches: list[BatchAnswer]
    next_cursor: str | None
