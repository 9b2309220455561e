"""Runs one claimed job: preparing, training in slices, publishing. Used on one thread.

    validating  fetch, read, check, tokenise
    compiling   measure how large a dispatch may be, compile, all off the device's thread
    training    slices on the device's thread; checkpoints on the writer's
    publishing  versions, ensemble, aliases

Whatever goes wrong fails the job, and nothing else.
"""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from prompts_store.blobs.files import Files
from prompts_store.errors import LeaseLostError, StoreError
from server.tuning.data.order import forget_orders
from server.tuning.document.job import JobDocument
from server.tuning.jobs.config import Because, ServiceConfig, TuningBase
from server.tuning.jobs.failures import (
    MAX_RUNS_WITHOUT_PROGRESS,
    GaveUpError,
    diverged,
    failure_of,
    log_line,
)
from server.tuning.jobs.held import HeldJob, JobCancelledError, JobStore, ServiceStoppingError
from server.tuning.jobs.observer import Ending, TuningObserver
from server.tuning.jobs.patient import patient
from server.tuning.jobs.preparing import Prepared, PromptReader, prepare
from server.tuning.jobs.publishing import PromptPublisher, is_good, publish, report_of
from server.tuning.jobs.reporting import Reporter
from server.tuning.jobs.sizing import Sizer, Sizes
from server.tuning.jobs.slices import DeviceWork
from server.tuning.jobs.sources import Sources
from server.tuning.jobs.writer import CheckpointWriter, newest_state, remove_older_runs, run_folder
from server.tuning.training.events import Event, StepFinished
from server.tuning.training.loop import TuningLoop
from server.tuning.training.programs import Programs
from server.tuning.training.run import TrainingRun
from server.tuning.training.state import TrainingState

logger = logging.getLogger(__name__)

_SLICE_END_SECONDS = 60.0


class TuningStore(JobStore, PromptReader, PromptPublisher, Protocol):
    """What of `PromptStore` a runner uses."""


class JobRunner:
    """Runs jobs, one after another.

    Args:
        work: gives slices of the device; nothing else uses it.
        because: entered around what compiles.
        alive: whether the device's owner still gives slices.
        files: of checkpoints; a test's.
    """

    def __init__(
        self,
        store: TuningStore,
        base: TuningBase,
        config: ServiceConfig,
        work: DeviceWork,
        observer: TuningObserver,
        because: Because,
        alive: Callable[[], bool],
        files: Files,
    ) -> None:
        self._store = store
        self._base = base
        self._config = config
        self._work = work
        self._observer = observer
        self._because = because
        self._alive = alive
        self._files = files

    def run(self, held: HeldJob) -> Ending:
        """Bring the job as far as it goes. Never raises."""
        run = _Run(self, held)
        try:
            return run.work()
        except ServiceStoppingError:
            run.give_back()
            return "released"
        except LeaseLostError:
            logger.warning("%s is in other hands; this run of it ends", held.job.id)
            return "lost"
        except JobCancelledError:
            return run.end("cancelled")
        except Exception as error:
            record = failure_of(error)
            if record["code"] == "internal":
                logger.error("%s stopped because of a defect", held.job.id, exc_info=error)
            return run.end("failed", record)

    def folder_of(self, tenant: str, job_id: str) -> Path:
        """Where a job's checkpoints and downloads are."""
        return self._config.folder / tenant / job_id


class _Run:
    """One run of one job."""

    def __init__(self, runner: JobRunner, held: HeldJob) -> None:
        self._runner = runner
        self._held = held
        self._store = patient(runner._store, held)
        self._config = runner._config
        self._base = runner._base
        self._folder = runner.folder_of(held.job.tenant, held.job.id)
        self._progress: dict[str, Any] = dict(held.job.progress)

    # The way through.

    def work(self) -> Ending:
        """Every phase in turn."""
        held = self._held
        held.check()
        self._count_runs()
        settled = self._progress.get("settled") or {}
        spec = _pinned(JobDocument.from_json(held.job.spec).for_base(self._base.fingerprint), settled)
        self._phase("validating")
        sources = Sources(self._store, held.job.tenant, self._config, self._folder, self._interrupt)
        prepared = prepare(spec, self._base, self._store, sources, self._interrupt)
        self._phase("compiling", [("warning", {"message": text}) for text in prepared.warnings])
        job, programs = self._settle(prepared, settled)
        state = self._train(prepared, job, programs)
        return self._publish(prepared, job, state)

    def _settle(self, prepared: Prepared, settled: Mapping[str, Any]) -> tuple[TrainingRun, Programs]:
        """Sizes and programs; what is fixed for later runs is written down before the first step."""
        held, spec = self._held, prepared.spec

        def compiled(name: str, seconds: float, measuring: bool) -> None:
            self._runner._observer.compiled(name, seconds)
            data = {"name": name, "seconds": round(seconds, 3), "measuring": measuring}
            held.tell([("program", data)])

        sizer = Sizer(
            self._base,
            prepared.job,
            spec.prompts[0].recipe.batch_size,
            self._runner._work,
            self._config.slice_seconds,
            self._config.longest_seconds,
            compiled,
            self._interrupt,
        )
        sizes = settled.get("sizes")
        with self._runner._because("tuning"):
            job, programs, found, warnings = sizer.settle(
                spec.prompts[0].recipe.micro_batch_size, Sizes(**sizes) if sizes else None
            )
        self._progress["settled"] = {
            "sizes": asdict(found),
            "initial_prompts": [prompt.initial_prompt for prompt in spec.prompts],
        }
        held.tell([("warning", {"message": text}) for text in warnings])
        held.update(progress=self._progress)
        return job, programs

    def _train(self, prepared: Prepared, job: TrainingRun, programs: Programs) -> TrainingState:
        """Slices until the loop is done; the state is then on the disk."""
        held, work = self._held, self._runner._work
        state, warning = newest_state(self._folder, job)
        if warning is not None:
            held.tell([("warning", {"message": warning})])
        run = run_folder(self._folder, held.token)
        saved: deque[int] = deque()

        def may_write() -> bool:
            return not held.lost.is_set()

        writer = CheckpointWriter(run, job, self._runner._files, saved.append, may_write)
        with self._runner._because("tuning"):
            loop = TuningLoop(job, programs, self._base.vocabulary.decode, state, writer.save)
        reporter = Reporter(held, prepared.spec, self._progress)
        reporter.begin(loop.state.step)
        happened: deque[Event] = deque()

        def piece() -> bool:
            happened.extend(loop.run_slice(1))
            return loop.done

        def pump() -> None:
            while happened:
                event = happened.popleft()
                if isinstance(event, StepFinished):
                    self._runner._observer.step_done()
                reporter.add(event)
            while saved:
                self._runner._observer.checkpoint_written()
                reporter.checkpointed(saved.popleft())
                remove_older_runs(self._folder, run)

        writer.start()
        work.start(piece)
        try:
            while not work.wait(min(0.5, self._config.poll_seconds)):
                self._interrupt()
                writer.check()
                pump()
                reporter.tick()
            writer.flush()
            pump()
            reporter.flush()
        except (JobCancelledError, ServiceStoppingError):
            if work.stop(_SLICE_END_SECONDS) and self._runner._alive():
                writer.save(loop.state)
                writer.flush()
                pump()
                reporter.flush()
            raise
        finally:
            work.stop(_SLICE_END_SECONDS)
            writer.close()
            forget_orders()
        return loop.state

    def _publish(self, prepared: Prepared, job: TrainingRun, state: TrainingState) -> Ending:
        held = self._held
        if not any(is_good(standing) for standing in state.standings):
            result = {
                "prompts": [report_of(prepared, n, each) for n, each in enumerate(state.standings)],
                "ensemble": None,
            }
            return self.end("failed", diverged(state), result)
        self._phase("publishing")
        held.check()
        outcome = publish(
            self._store, held.job, held.lease, prepared, job, state, self._base, self._config.code_version
        )
        held.tell(outcome.events)
        self._progress |= {"phase": "done", "runs_without_progress": 0, "seconds_left": 0.0}
        held.update(progress=self._progress)
        held.finish("succeeded", result=outcome.result)
        shutil.rmtree(self._folder, ignore_errors=True)
        return "succeeded"

    # Beside it.

    def end(
        self, status: Any, error: dict[str, Any] | None = None, result: dict[str, Any] | None = None
    ) -> Ending:
        """The job is over without versions. Never raises."""
        held = self._held
        self._progress["runs_without_progress"] = 0
        try:
            held.tell([("failed", error)] if error else [])
            held.update(progress=self._progress)
            held.finish(status, error=error, result=result)
            # Only now: until then another may run it. Checkpoints stay for a resumption; what was downloaded
            # can be fetched again.
            shutil.rmtree(self._folder / "downloads", ignore_errors=True)
            if error is not None:
                logger.warning("%s failed: %s", held.job.id, log_line(error))
        except LeaseLostError:
            return "lost"
        except StoreError as failure:
            logger.warning(
                "the end of %s could not be written; it is run again: %s", held.job.id, failure.message
            )
            return "lost"
        ending: Ending = status
        return ending

    def give_back(self) -> None:
        """Into the queue, for the next process. Never raises: a lease runs out by itself."""
        runs = self._progress.get("runs_without_progress", 1)
        self._progress["runs_without_progress"] = max(0, runs - 1)  # an orderly end is no failure
        try:
            self._held.update(progress=self._progress)
            self._held.release()
        except StoreError as error:
            logger.warning("%s could not be given back: %s", self._held.job.id, error.message)

    def _interrupt(self) -> None:
        self._held.check()
        if not self._runner._alive():
            raise ServiceStoppingError

    def _phase(self, name: str, events: Any = ()) -> None:
        self._progress["phase"] = name
        self._held.tell(list(events))
        self._held.update(progress=self._progress)
        self._interrupt()

    def _count_runs(self) -> None:
        """A job that ends its process each time must not go round for ever."""
        progress, step = self._progress, self._progress.get("checkpoint_step", 0)
        same = progress.get("begun_at_step") == step
        runs = progress.get("runs_without_progress", 0) + 1 if same else 1
        if runs > MAX_RUNS_WITHOUT_PROGRESS:
            raise GaveUpError(runs - 1, step)
        progress |= {"begun_at_step": step, "runs_without_progress": runs}


def _pinned(spec: JobDocument, settled: Mapping[str, Any]) -> JobDocument:
    """The document with the versions that an earlier run found behind its references."""
    fixed = settled.get("initial_prompts")
    if not fixed:
        return spec
    pairs = zip(spec.prompts, fixed, strict=True)
    prompts = tuple(prompt.model_copy(update={"initial_prompt": found}) for prompt, found in pairs)
    return spec.model_copy(update={"prompts": prompts})
