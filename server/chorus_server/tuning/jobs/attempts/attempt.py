"""One attempt at a job: what its stages work with. Used by one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chorus_server.jobs.attempt import JobAttempt
from chorus_server.jobs.leased import ServiceStoppingError
from chorus_server.jobs.slices import DeviceWork
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.jobs.attempts.config import Because, ServiceConfig, TuningBase
from chorus_server.tuning.jobs.attempts.metrics import TuningMetrics
from prompts_store.blobs.files import Files


@dataclass
class Attempt(JobAttempt):
    """The context of every stage.

    Attributes:
        work: runs slices on the device; used by nothing else.
        because: entered around work that compiles.
        alive: whether the device's owner still runs slices.
        files: writes checkpoints; tests pass their own.
    """

    base: TuningBase
    config: ServiceConfig
    work: DeviceWork
    metrics: TuningMetrics
    because: Because
    alive: Callable[[], bool]
    files: Files

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
