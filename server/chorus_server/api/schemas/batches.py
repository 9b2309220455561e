"""Answers of the native routes of batches."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.schemas.documents.batch import BatchEndpoint
from chorus_server.api.schemas.jobs import JobState


class BatchAnswer(JobState):
    """A batch."""

    endpoint: BatchEndpoint
    file: str
    metadata: dict[str, str]
    progress: dict[str, Any] = Field(
        description="`rows` of `rows_in_all` are answered, `failed` of them with an error; `faults` of the "
        "file, each with its `line`."
    )
    result: dict[str, Any] = Field(
        description="`rows`, `failed`, the ids `output_file` and `error_file` (null where there is none) and "
        "`usage`, once it has succeeded."
    )


class BatchPage(AnswerModel):
    """Batches, newest first."""

    batches: list[BatchAnswer]
    next_cursor: str | None
