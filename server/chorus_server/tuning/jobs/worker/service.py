"""Takes jobs from the store and runs them, one at a time, for as long as the process lives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta

from chorus_server.jobs.leased import LeasedJob
from chorus_server.jobs.slices import DeviceWork
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.attempts.config import Because, ServiceConfig, TuningBase
from chorus_server.tuning.jobs.attempts.metrics import TuningMetrics
from chorus_server.tuning.jobs.worker.leftovers import remove_leftovers
from chorus_server.tuning.jobs.worker.pipeline import make_attempt
from prompts_store.blobs.files import Files
from prompts_store.errors import StoreError
from prompts_store.jobs.records import MATRIX_DTYPE
from prompts_store.store import PromptStore

logger = logging.getLogger(__name__)

_BEATS_A_LEASE = 3.0
_SWEEP_SECONDS = 3600.0
_TELL_SECONDS = 30.0


class TuningService:
    """Runs jobs on a thread of its own. While a job runs, one more thread keeps its lease, and one writes its
    checkpoints. Work for the device is in `work`, for the device's owner to run.

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
        self._say = say
        self._metrics = metrics
        self.work = DeviceWork(lambda: because("tuning"), metrics.slice_seconds.observe)
        self._store = store
        self._config = config
        self._alive = alive
        self._base = base
        self._stopping = threading.Event()
        self._look = threading.Event()
        self._because = because
        self._files = files or Files()
        self._held: LeasedJob | None = None
        metrics.running.watch(lambda: self.running is not None)
        self._sweep_at = self._tell_at = 0.0
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="chorus-tuning", daemon=True)

    def start(self) -> None:
        """Start to take jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look for a job now, since one was made."""
        self._look.set()

    @property
    def running(self) -> str | None:
        """Id of the job that is running."""
        held = self._held
        return None if held is None else held.job.id

    def stop(self, seconds: float) -> bool:
        """Save the state of the running job, give the job back and end the thread.

        Returns:
            False if the thread still runs after so many seconds, because it compiles. The job is then given
            back all the same, and the process should end without waiting. A second call does not wait.
        """
        first = not self._stopping.is_set()
        self._stopping.set()
        self._look.set()
        if self._thread.ident is None:
            return True
        self._thread.join(seconds if first else 0)
        ended = not self._thread.is_alive()
        held = self._held
        if first and not ended and held is not None:
            held.lost.set()
            try:
                held.release()
            except StoreError as error:
                logger.warning("%s could not be given back: %s", held.job.id, error.message)
        return ended

    def _run(self) -> None:
        while not self._stopping.is_set() and self._alive():
            self._unharmed(self._sweep)
            self._look.clear()
            if not self._unharmed(self._run_one):
                self._look.wait(self._config.poll_seconds)

    def _unharmed(self, part: Callable[[], bool | None]) -> bool:
        """The result of `part`. If it raises, that is logged, and the service goes on to the next job."""
        try:
            return bool(part())
        except (StoreError, OSError) as error:
            logger.warning("could not take jobs, will try again: %s", error)
            return False
        except Exception:
            logger.exception("could not take jobs, will try again")
            return False

    def _run_one(self) -> bool:
        """Take a job and run it; whether to look for the next one at once."""
        config = self._config
        try:
            claimed = self._store.claim_job(
                "tuning",
                config.owner,
                config.lease_seconds,
                self._base.fingerprint,
                self._base.matrix_dtype,
            )
            if claimed is None:
                self._tell_of_others()
        except StoreError as error:
            logger.warning("could not ask the store for jobs: %s", error.message)
            return False
        if claimed is None:
            return False
        job, lease = claimed
        held = LeasedJob(
            self._store, job, lease, config.lease_seconds, config.patience_seconds, self._stopping
        )
        self._metrics.runs.inc()
        self._say(f"{job.id} begins (attempt {job.attempt})")
        attempt = Attempt(
            held, self._base, config, self.work, self._metrics, self._because, self._alive, self._files
        )
        self._held = held
        try:
            with held.kept(min(config.poll_seconds, config.lease_seconds / _BEATS_A_LEASE)):
                ending = make_attempt(attempt)
        finally:
            self._held = None
        self._metrics.runs_ended.inc(1, ending)
        if ending != "failed":  # the pipeline has logged why
            self._say(f"{job.id} {ending}")
        return ending != "lost"  # after a lost job pause first: the store may be away

    def _tell_of_others(self) -> None:
        """Say, once for each, which waiting jobs this process leaves because of its matrices."""
        if time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + _TELL_SECONDS
        ours = self._base.matrix_dtype
        for job in self._store.jobs_of_other_matrices("tuning", self._base.fingerprint, ours):
            if job.id not in self._told:
                self._told.add(job.id)
                theirs = job.progress["settled"].get(MATRIX_DTYPE, "float32")
                setting = {"float32": "f32", "bfloat16": "bf16"}.get(theirs, theirs)
                logger.warning(
                    "%s waits for another process: it was begun with matrices in %s, and this process has "
                    "them in %s; `chorus worker --matrix-dtype %s` goes on with it",
                    job.id, theirs, ours, setting,
                )  # fmt: skip

    def _sweep(self) -> None:
        """Remove old checkpoints, now and then."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + _SWEEP_SECONDS
        keep = timedelta(seconds=self._config.keep_seconds)
        if removed := remove_leftovers(self._config.folder, self._store, keep):
            logger.info("removed the checkpoints of %d ended jobs", removed)
