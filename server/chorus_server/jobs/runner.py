"""Takes jobs of one kind from the store and runs them, each on a thread, for as long as the process lives."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from chorus_server.jobs.endings import AttemptEnding
from chorus_server.jobs.leased import LeasedJob
from chorus_server.jobs.leftovers import remove_leftovers
from prompts_store.errors import StoreError
from prompts_store.jobs.records import MATRIX_DTYPE, Job, JobKind
from prompts_store.store import PromptStore

logger = logging.getLogger(__name__)

_BEATS_A_LEASE = 3.0
_SWEEP_SECONDS = 3600.0
_TELL_SECONDS = 30.0


def this_process() -> str:
    """The name of this process, for people."""
    return f"{socket.gethostname()[:64]} process {os.getpid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerConfig:
    """How jobs of any kind are run.

    Attributes:
        folder: of what attempts leave for later ones, with one folder for each job.
        owner: name of whoever claims jobs, for people.
        lease_seconds: after this long without a renewal, another process may take the job.
        poll_seconds: time between two looks of a running job for a cancellation.
        look_seconds: time between two looks for new jobs, where nobody calls `wake`.
        keep_seconds: how long what a failed or cancelled job left is kept for a resumption.
        patience_seconds: how long to retry a store that does not answer before giving up the job.
        at_once: most jobs that run side by side; of a tenant it is one.
    """

    folder: Path
    owner: str
    lease_seconds: float = 30.0
    poll_seconds: float = 1.0
    look_seconds: float = 1.0
    keep_seconds: float = 14 * 86_400.0
    patience_seconds: float = 300.0
    at_once: int = 1


class JobRunner(ABC):
    """Takes jobs on a thread of its own. While a job runs, it has a thread, and one more keeps its lease.

    Args:
        kind: the jobs that it takes.
        fingerprint, matrix_dtype: of the base model in this process; jobs of others are left.
        alive: whether the device's owner still works; if not, no further job is taken.
        say: called with one line at the start and the end of each attempt.
    """

    def __init__(
        self,
        store: PromptStore,
        kind: JobKind,
        fingerprint: str,
        matrix_dtype: str,
        config: RunnerConfig,
        *,
        alive: Callable[[], bool] = lambda: True,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        self._store = store
        self._kind: JobKind = kind
        self._fingerprint = fingerprint
        self._matrix_dtype = matrix_dtype
        self._config = config
        self._alive = alive
        self._say = say
        self._stopping = threading.Event()
        self._stopped = False
        self._look = threading.Event()
        self._running: dict[threading.Thread, LeasedJob] = {}
        self._sweep_at = self._tell_at = 0.0
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"chorus-{kind}", daemon=True)

    @abstractmethod
    def attempt(self, held: LeasedJob) -> AttemptEnding:
        """Run a job as far as it gets. Never raises."""

    def start(self) -> None:
        """Start to take jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look for a job now, since one was made."""
        self._look.set()

    @property
    def kind(self) -> JobKind:
        """The jobs that it takes."""
        return self._kind

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that are running."""
        return tuple(job.id for job in self.jobs)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs that are running, as they were when they were taken."""
        return tuple(held.job for held in tuple(self._running.values()))

    def begin_to_stop(self) -> None:
        """Have the running jobs end soon, and take no other. Returns at once."""
        self._stopping.set()
        self._look.set()

    def stop(self, seconds: float) -> bool:
        """Save the state of the running jobs, give them back and end all threads.

        Returns:
            False if a thread still runs after so many seconds, because it compiles. Its job is then given
            back all the same, and the process should end without waiting. A second call does not wait.
        """
        first, self._stopped = not self._stopped, True
        self.begin_to_stop()
        if self._thread.ident is None:
            return True
        until = time.monotonic() + (seconds if first else 0)
        self._thread.join(max(0, until - time.monotonic()))  # after it no job begins
        for thread in tuple(self._running):
            if thread.ident is not None:
                thread.join(max(0, until - time.monotonic()))
        left = tuple(self._running.values())
        for held in left if first else ():
            held.lost.set()
            try:
                held.release()
            except StoreError as error:
                logger.warning("%s could not be given back: %s", held.job.id, error.message)
        return not left and not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set() and self._alive():
            self._unharmed(self._sweep)
            self._look.clear()
            if self._stopping.is_set():  # what was cleared may have said so
                return
            if len(self._running) >= self._config.at_once or not self._unharmed(self._take):
                self._look.wait(self._config.look_seconds)

    def _unharmed(self, part: Callable[[], bool | None]) -> bool:
        """The result of `part`. If it raises, that is logged, and the runner goes on to the next job."""
        try:
            return bool(part())
        except (StoreError, OSError) as error:
            logger.warning("could not take jobs, will try again: %s", error)
            return False
        except Exception:
            logger.exception("could not take jobs, will try again")
            return False

    def _take(self) -> bool:
        """Take a job and begin to run it; False if none is waiting."""
        config = self._config
        at_work = [held.job.tenant for held in tuple(self._running.values())]
        try:
            claimed = self._store.claim_job(
                self._kind,
                config.owner,
                config.lease_seconds,
                self._fingerprint,
                self._matrix_dtype,
                without_tenants=at_work,
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
        self._say(f"{job.id} begins (attempt {job.attempt})")
        thread = threading.Thread(target=self._run_job, args=(held,), name=f"chorus-{job.id}", daemon=True)
        self._running[thread] = held
        try:
            thread.start()
        except BaseException:  # too many threads: the job is taken again once its lease has run out
            del self._running[thread]
            raise
        return True

    def _run_job(self, held: LeasedJob) -> None:
        config = self._config
        try:
            with held.kept(min(config.poll_seconds, config.lease_seconds / _BEATS_A_LEASE)):
                ending = self.attempt(held)
        except Exception:
            logger.exception("%s was left, and begins again once its lease has run out", held.job.id)
            return
        finally:
            del self._running[threading.current_thread()]
        if ending != "failed":  # why was logged
            self._say(f"{held.job.id} {ending}")
        if ending != "lost":  # after a lost job the next look is not at once: the store may be away
            self._look.set()

    def _tell_of_others(self) -> None:
        """Say, once for each, which waiting jobs this process leaves because of its matrices."""
        if time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + _TELL_SECONDS
        ours = self._matrix_dtype
        for job in self._store.jobs_of_other_matrices(self._kind, self._fingerprint, ours):
            if job.id not in self._told:
                self._told.add(job.id)
                theirs = job.progress["settled"].get(MATRIX_DTYPE, "float32")
                setting = {"float32": "f32", "bfloat16": "bf16"}.get(theirs, theirs)
                who = "chorus worker" if self._kind == "tuning" else "chorus serve"
                logger.warning(
                    "%s waits for another process: it was begun with matrices in %s, and this process has "
                    "them in %s; `%s --matrix-dtype %s` goes on with it",
                    job.id, theirs, ours, who, setting,
                )  # fmt: skip

    def _sweep(self) -> None:
        """Remove what old jobs left, now and then."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + _SWEEP_SECONDS
        keep = timedelta(seconds=self._config.keep_seconds)
        if removed := remove_leftovers(self._config.folder, self._store, keep):
            logger.info("removed what %d ended jobs had left", removed)
