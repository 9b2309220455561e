"""Jobs of every kind."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from chorus.types.base import Wire
from chorus.types.tuning import AnyJob


class GeneralJobSummary(AnyJob):
    """A job of any kind as a list shows it.

    Attributes:
        kind: `tuning`, `evaluation`, `calibration` or `batch`.
        paused: whether a tuning job waits until somebody resumes it.
    """

    kind: str
    paused: bool = False


class GeneralJob(GeneralJobSummary):
    """A job of any kind.

    Attributes:
        spec: the document of its kind.
        result: what it made, once it has succeeded.
    """

    spec: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)


class GeneralJobPage(Wire):
    """Part of the list of jobs, newest first."""

    jobs: list[GeneralJobSummary]
    next_cursor: str | None = None
