"""What an attempt at a job works with, whatever the kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chorus_server.jobs.leased import LeasedJob
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore


@dataclass(slots=True)
class JobAttempt:
    """The job, under this attempt's lease. Used by one thread.

    Attributes:
        progress: the job's, as `save_progress` stores it.
    """

    held: LeasedJob
    progress: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.progress = dict(self.held.job.progress)

    @property
    def job(self) -> Job:
        """The job as it was claimed."""
        return self.held.job

    @property
    def store(self) -> PromptStore:
        """The store, with calls that outlast a short outage."""
        return self.held.store

    def save_progress(self) -> None:
        """Store the progress."""
        self.held.update(progress=self.progress)

    def warn(self, messages: Iterable[str]) -> None:
        """Tell warnings, as events of the job."""
        self.held.tell([("warning", {"message": message}) for message in messages])
