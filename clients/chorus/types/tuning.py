"""Files of training data, tuning jobs and their events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus.types.base import Wire

UNFINISHED = frozenset({"queued", "preparing", "running"})


class DataFile(Wire):
    """An uploaded file of training data."""

    id: str
    name: str
    size_bytes: int
    sha256: str
    created_at: datetime
    created_by: str = ""


class FilePage(Wire):
    """Part of the list of files, newest first. `next_cursor` is None on the last page."""

    files: list[DataFile]
    next_cursor: str | None = None


class AnyJob(Wire):
    """What is known of a job of any kind.

    Attributes:
        status: `queued`, `preparing`, `running`, `succeeded`, `failed` or `cancelled`.
        error: why it failed: `code`, `message`, sometimes `field`.
        progress: how far it is.
        attempt: how many times a process started to run it.
    """

    id: str
    status: str
    created_at: datetime
    created_by: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: dict[str, Any] | None = None
    progress: dict[str, Any] = Field(default_factory=dict)
    cancel_requested: bool = False
    attempt: int = 0

    @property
    def over(self) -> bool:
        """Whether it has ended in any way."""
        return self.status not in UNFINISHED

    @property
    def succeeded(self) -> bool:
        """Whether it succeeded."""
        return self.status == "succeeded"


class JobSummary(AnyJob):
    """A tuning job as a list shows it.

    Attributes:
        tasks: the tasks that get new versions.
        progress: `step` of `steps`, and more.
        paused: whether it waits until it is resumed.
    """

    tasks: list[str] = Field(default_factory=list)
    paused: bool = False


class Job(JobSummary):
    """A tuning job.

    Attributes:
        spec: the job document with every default filled in.
        result: versions and metrics, once it has succeeded.
    """

    spec: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)


class JobPage(Wire):
    """Part of the list of jobs, newest first."""

    jobs: list[JobSummary]
    next_cursor: str | None = None


class JobEvent(Wire):
    """Something that happened in a job.

    Attributes:
        seq: 1, 2, ... in each job.
        kind: `status`, `step`, `evaluated`, `warning`, `published`, ...; a newer server may send more kinds.
    """

    seq: int
    at: datetime
    kind: str
    data: dict[str, Any] = Field(default_factory=dict)


class JobEventList(Wire):
    """Events after a given number, in order."""

    events: list[JobEvent]


class JobDone(Wire):
    """The last event of a followed job."""

    id: str
    status: str
