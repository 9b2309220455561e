"""Answers of the routes of jobs of every kind."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from prompts_store.jobs.records import JobKind, JobStatus


class JobState(AnswerModel):
    """What is told of a job of every kind."""

    id: str
    status: JobStatus
    created_at: datetime
    created_by: str
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None = Field(
        description="Why it failed: `code`, `message` and sometimes `field`."
    )
    progress: dict[str, Any] = Field(description="How far it is, in its kind's own terms.")
    cancel_requested: bool
    attempt: int = Field(description="How many times a process started to run it.")


class AnyJobSummary(JobState):
    """A job of any kind in a list."""

    kind: JobKind
    paused: bool = Field(description="Whether a tuning job waits until somebody resumes it.")


class AnyJobAnswer(AnyJobSummary):
    """A job of any kind."""

    spec: dict[str, Any] = Field(description="What to do: the document of its kind.")
    result: dict[str, Any] = Field(description="What it made, once it has succeeded.")


class AnyJobPage(AnswerModel):
    """Jobs of all kinds, newest first."""

    jobs: list[AnyJobSummary]
    next_cursor: str | None
