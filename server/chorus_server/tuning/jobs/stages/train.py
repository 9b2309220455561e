"""The third stage: slices on the device's thread, checkpoints on the writer's, events on this one."""

from __future__ import annotations

from collections import deque

from chorus_server.jobs.leased import JobCancelledError, ServiceStoppingError
from chorus_server.tuning.data.order import forget_orders
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.reporting import Reporter
from chorus_server.tuning.jobs.stages.validate import Validated
from chorus_server.tuning.jobs.stages.writer import (
    CheckpointWriter,
    attempt_folder,
    newest_state,
    remove_older_attempts,
)
from chorus_server.tuning.training.events import StepFinished, TrainingEvent
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import TrainingState

_SLICE_END_SECONDS = 60.0


def train(
    attempt: Attempt, validated: Validated, run: TrainingRun, programs: TuningPrograms
) -> TrainingState:
    """Run slices until the run is done and its state is on disk.

    Raises:
        InvalidInputError: see `newest_state`.
        OSError: a checkpoint could not be written.
    """
    held, work = attempt.held, attempt.work
    mesh = attempt.base.functions.mesh
    state, warning = newest_state(attempt.folder, run, mesh)
    attempt.warn([warning] if warning is not None else [])
    folder = attempt_folder(attempt.folder, held.token)
    saved: deque[int] = deque()

    def may_write() -> bool:
        return not held.lost.is_set()

    writer = CheckpointWriter(folder, run, attempt.files, saved.append, may_write, mesh)
    with attempt.because("tuning"):
        loop = TuningLoop(run, programs, attempt.base.vocabulary.decode, state, writer.save)
    reporter = Reporter(held, validated.document, attempt.progress)
    reporter.begin(loop.state.step)
    happened: deque[TrainingEvent] = deque()

    def piece() -> bool:
        happened.extend(loop.run_slice(1))
        return loop.done

    def pump() -> None:
        while happened:
            event = happened.popleft()
            if isinstance(event, StepFinished):
                attempt.metrics.steps.inc()
            reporter.add(event)
        while saved:
            attempt.metrics.checkpoints_written.inc()
            reporter.checkpointed(saved.popleft())
            remove_older_attempts(attempt.folder, folder)

    writer.start()
    work.start(piece)
    try:
        while not work.wait(min(0.5, attempt.config.poll_seconds)):
            attempt.interrupt()
            writer.check()
            pump()
            reporter.tick()
        writer.flush()
        pump()
        reporter.flush()
    except (JobCancelledError, ServiceStoppingError):
        if work.stop(_SLICE_END_SECONDS) and attempt.alive():
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
