"""Answers of the routes of files and tuning jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.schemas.jobs import JobState
from chorus_server.tuning.document.job import JobDocument


class FileAnswer(AnswerModel):
    """An uploaded file of training data."""

    id: str
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime
    created_by: str


class FilePage(AnswerModel):
    """Files, newest first."""

    files: list[FileAnswer]
    next_cursor: str | None


class JobSummary(JobState):
    """A tuning job in a list."""

    tasks: list[str]
    progress: dict[str, Any] = Field(description="Progress from its last `step` event.")
    paused: bool = Field(description="Whether it waits until it is resumed.")


class JobAnswer(JobSummary):
    """A tuning job."""

    spec: JobDocument = Field(
        description="The job document with every default filled in; all prompts are in `prompts`."
    )
    result: dict[str, Any] = Field(description="Versions and metrics, once it has succeeded.")


class JobPage(AnswerModel):
    """Tuning jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None


class JobEventAnswer(AnswerModel):
    """Something that happened in a job."""

    seq: int = Field(description="Numbered 1, 2, ... in each job; also the `id` of the server-sent event.")
    at: datetime
    kind: str
    data: dict[str, Any]


class JobEventList(AnswerModel):
    """Events after a given number, in order."""

    events: list[JobEventAnswer]
