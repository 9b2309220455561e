"""One attempt at a job: what its stages work with. Used by one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chorus_server.jobs.leased import LeasedJob, ServiceStoppingError
from chorus_server.jobs.slices import DeviceWork
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.jobs.attempts.config import Because, ServiceConfig, TuningBase
from chorus_server.tuning.jobs.attempts.metrics import TuningMetrics
from prompts_store.blobs.files import Files
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore


@dataclass
class Attempt:
    """The context of every stage.

    Attributes:
        held: the job, under this attempt's lease.
        work: runs slices on the device; used by nothing else.
        because: entered around work that compiles.
        alive: whether the device's owner still runs slices.
        files: writes checkpoints; tests pass their own.
        progress: the job's, as `save_progress` stores it.
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
        """The job as it was claimed."""
        return self.held.job

    @property
    def store(self) -> PromptStore:
        """The store, with calls that outlast a short outage."""
        return self.held.store

    @property
    def folder(self) -> Path:
        """For checkpoints and downloads of the job: an attempt finds there what earlier ones left."""
        return self.config.folder / self.job.tenant / self.job.id

    @property
    def settled(self) -> Mapping[str, Any]:
        """What an earlier attempt fixed for later ones: sizes, and the versions of initial prompts."""
        found: Mapping[str, Any] = self.progress.get("settled") or {}
        return found

    def document(self) -> JobDocument:
        """The job's document, with references fixed to the versions that an earlier attempt found."""
        document = JobDocument.from_json(self.job.spec).for_base(self.base.fingerprint)
        fixed = self.settled.get("initial_prompts")
        if not fixed:
            return document
        pairs = zip(document.prompts, fixed, strict=True)
        prompts = tuple(prompt.model_copy(update={"initial_prompt": found}) for prompt, found in pairs)
        return document.model_copy(update={"prompts": prompts})

    def interrupt(self) -> None:
        """Return if the attempt may go on.

        Raises:
            LeaseLostError, JobCancelledError, ServiceStoppingError: it may not.
        """
        self.held.check()
        if not self.alive():
            raise ServiceStoppingError

    def begin(self, stage: str, warnings: Iterable[str] = ()) -> None:
        """Begin a stage, after telling the warnings of the stage before."""
        self.progress["phase"] = stage
        self.warn(warnings)
        self.save_progress()
        self.interrupt()

    def warn(self, messages: Iterable[str]) -> None:
        """Tell warnings, as events of the job."""
        self.held.tell([("warning", {"message": message}) for message in messages])

    def save_progress(self) -> None:
        """Store the progress."""
        self.held.update(progress=self.progress)
