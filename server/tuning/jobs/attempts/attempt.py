"""One attempt at a job: what its stages work with. Used on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prompts_store.blobs.files import Files
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore
from server.jobs.leased import LeasedJob, ServiceStoppingError
from server.jobs.slices import DeviceWork
from server.tuning.document.job import JobDocument
from server.tuning.jobs.attempts.config import Because, ServiceConfig, TuningBase
from server.tuning.jobs.attempts.metrics import TuningMetrics


@dataclass
class Attempt:
    """The context of every stage.

    Attributes:
        held: the job, under this attempt's lease.
        work: gives slices of the device; nothing else uses it.
        because: entered around what compiles.
        alive: whether the device's owner still gives slices.
        files: of checkpoints; a test's.
        progress: the job's, as the store has it or is about to.
    """

    held: LeasedJob
    base: TuningBase
    config: ServiceConfig
    work: DeviceWork
    metrics: TuningMetrics
    because: Because
    alive: Callable[[], bool]
    files: Files
    progress: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.progress = dict(self.held.job.progress)

    @property
    def job(self) -> Job:
        """As it was claimed."""
        return self.held.job

    @property
    def store(self) -> PromptStore:
        """Whose calls outlast a short outage."""
        return self.held.store

    @property
    def folder(self) -> Path:
        """The job's own, for checkpoints and downloads: an attempt goes on with what those before left."""
        return self.config.folder / self.job.tenant / self.job.id

    @property
    def settled(self) -> Mapping[str, Any]:
        """What an earlier attempt fixed for those that follow: sizes, versions of prompts to start from."""
        found: Mapping[str, Any] = self.progress.get("settled") or {}
        return found

    def document(self) -> JobDocument:
        """What to do, with the versions that an earlier attempt found behind its references."""
        document = JobDocument.from_json(self.job.spec).for_base(self.base.fingerprint)
        fixed = self.settled.get("initial_prompts")
        if not fixed:
            return document
        pairs = zip(document.prompts, fixed, strict=True)
        prompts = tuple(prompt.model_copy(update={"initial_prompt": found}) for prompt, found in pairs)
        return document.model_copy(update={"prompts": prompts})

    def interrupt(self) -> None:
        """Whether to go on.

        Raises:
            LeaseLostError, JobCancelledError, ServiceStoppingError: no.
        """
        self.held.check()
        if not self.alive():
            raise ServiceStoppingError

    def begin(self, stage: str, warnings: Iterable[str] = ()) -> None:
        """A stage begins, after what the one before it warns of."""
        self.progress["phase"] = stage
        self.warn(warnings)
        self.save_progress()
        self.interrupt()

    def warn(self, messages: Iterable[str]) -> None:
        """Tell what is odd and yet allowed."""
        self.held.tell([("warning", {"message": message}) for message in messages])

    def save_progress(self) -> None:
        """The store has the progress as it is here."""
        self.held.update(progress=self.progress)
