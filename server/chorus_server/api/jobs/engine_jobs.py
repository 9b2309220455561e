"""Runs the jobs of one kind whose work is requests to the engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chorus_server.api.jobs.attempt import EngineAttempt
from chorus_server.api.services import Services
from chorus_server.jobs.endings import AttemptEnding, run_to_end
from chorus_server.jobs.leased import LeasedJob, ServiceStoppingError
from chorus_server.jobs.runner import JobRunner, RunnerConfig
from prompts_store.jobs.records import JobKind

JobWork = Callable[[EngineAttempt], Mapping[str, Any]]
"""Does a job of one kind: its result. Raises what `run_to_end` makes an ending of."""


class EngineJobs(JobRunner):
    """Runs jobs of one kind in a serving process.

    Args:
        work: of the kind.
        services: of the process, whose event loop and engine serve.
    """

    def __init__(self, kind: JobKind, work: JobWork, services: Services, config: RunnerConfig) -> None:
        base, lifecycle = services.base(), services.lifecycle
        super().__init__(
            services.library.store,
            kind,
            base.fingerprint,
            base.matrix_dtype,
            config,
            alive=lambda: not lifecycle.ending,
        )
        self._work = work
        self._services = services

    def attempt(self, held: LeasedJob) -> AttemptEnding:
        """Run a job."""
        folder: Path = self._config.folder / held.job.tenant / held.job.id
        loop = self._services.loop
        assert loop is not None
        attempt = EngineAttempt(held, self._services, loop, folder)

        def work() -> AttemptEnding:
            if not self._alive():
                raise ServiceStoppingError
            attempt.begin()
            result = self._work(attempt)
            attempt.progress |= {"phase": "done", "runs_without_progress": 0}
            attempt.save_progress()
            held.finish("succeeded", result=result)
            shutil.rmtree(folder, ignore_errors=True)
            return "succeeded"

        metrics, kind = self._services.metrics.jobs, self._kind
        metrics.runs.inc(1, kind)
        ending = run_to_end(held, attempt.progress, work)
        metrics.runs_ended.inc(1, kind, ending)
        return ending
