"""Runs tuning jobs, one at a time, for as long as the process lives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext

from chorus_server.jobs.endings import AttemptEnding
from chorus_server.jobs.leased import LeasedJob
from chorus_server.jobs.runner import JobRunner
from chorus_server.jobs.slices import DeviceWork
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.attempts.config import Because, ServiceConfig, TuningBase
from chorus_server.tuning.jobs.attempts.metrics import TuningMetrics
from chorus_server.tuning.jobs.worker.pipeline import make_attempt
from prompts_store.blobs.files import Files
from prompts_store.store import PromptStore

logger = logging.getLogger(__name__)


class TuningService(JobRunner):
    """Runs tuning jobs. While one runs, one more thread writes its checkpoints. Work for the device is in
    `work`, for the device's owner to run.

    Args:
        because: entered, with the cause, around work that compiles.
        alive: whether the device's owner still runs slices; if not, the job is given back.
        files: writes checkpoints; tests pass their own.
        say: called with one line at the start and the end of each attempt.
    """

    def __init__(
        self,
        store: PromptStore,
        base: TuningBase,
        config: ServiceConfig,
        *,
        metrics: TuningMetrics,
        because: Because = lambda cause: nullcontext(),
        alive: Callable[[], bool] = lambda: True,
        files: Files | None = None,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        super().__init__(store, "tuning", base.fingerprint, base.matrix_dtype, config, alive=alive, say=say)
        self.work = DeviceWork(lambda: because("tuning"), metrics.slice_seconds.observe)
        self._settings = config
        self._metrics = metrics
        self._base = base
        self._because = because
        self._files = files or Files()
        metrics.running.watch(lambda: bool(self.running))

    def attempt(self, held: LeasedJob) -> AttemptEnding:
        """Run a job through its stages."""
        self._metrics.runs.inc()
        ending = make_attempt(
            Attempt(
                held,
                self._base,
                self._settings,
                self.work,
                self._metrics,
                self._because,
                self._alive,
                self._files,
            )
        )
        self._metrics.runs_ended.inc(1, ending)
        return ending
