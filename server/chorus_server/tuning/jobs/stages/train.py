"""The third stage: slices on the device's thread, checkpoints on the writer's, events on this one."""

from __future__ import annotations

from collections import deque
from functools import partial
from pathlib import Path

from chorus_server.awake import awake
from chorus_server.jobs.leased import JobCancelledError, ServiceStoppingError
from chorus_server.tuning.data.order import forget_orders
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.reporting import Reporter
from chorus_server.tuning.jobs.stages.stretches import Stretch
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


class WorkClock:
    """Counts the time inside its `with` blocks, on the device's thread: what a run waits for others, and what
    lies between two attempts, does not count.

    Args:
        before: seconds to begin with.
    """

    def __init__(self, before: float) -> None:
        self._before = before
        self._since: float | None = None

    def __enter__(self) -> None:
        self._since = awake()

    def __exit__(self, *_: object) -> None:
        self._before, self._since = self.seconds(), None

    def seconds(self) -> float:
        """The time so far."""
        return self._before + (0.0 if self._since is None else awake() - self._since)


def train(
    attempt: Attempt,
    validated: Validated,
    run: TrainingRun,
    programs: TuningPrograms,
    stretch: Stretch | None = None,
    begin: TrainingState | None = None,
) -> TrainingState:
    """Run slices until the run, or its stretch, is done and its state is on disk.

    Args:
        validated: with the members of the run.
        begin: the state to start from where the stretch has none yet.

    Raises:
        InvalidInputError: see `newest_state`.
        OSError: a checkpoint could not be written.
    """
    held, work = attempt.held, attempt.work
    stretch = stretch or Stretch.whole(run)
    place, folder = _where(attempt, stretch)
    state, warning = newest_state(place, run, attempt.base.functions.mesh)
    attempt.warn([warning] if warning is not None else [])
    saved: deque[int] = deque()

    writer = CheckpointWriter(
        folder, run, attempt.files, saved.append, lambda: not held.lost.is_set(), attempt.base.functions.mesh
    )
    state = state or begin
    clock = WorkClock(state.seconds if state else 0.0)
    with attempt.because("tuning"):
        loop = TuningLoop(
            run,
            programs,
            attempt.base.vocabulary.decode,
            state,
            writer.save,
            until=stretch.until,
            tested=stretch.tested,
            seconds=clock.seconds,
        )
    reporter = Reporter(held, stretch, [member.task for member in validated.members], attempt.progress)
    reporter.begin(loop.state.step)
    happened: deque[TrainingEvent] = deque()
    piece = partial(_slice, loop, clock, happened)

    def pump() -> None:
        while happened:
            event = happened.popleft()
            if isinstance(event, StepFinished):
                attempt.metrics.steps.inc()
            reporter.add(event)
        while saved:
            attempt.metrics.checkpoints_written.inc()
            reporter.checkpointed(saved.popleft())
            remove_older_attempts(place, folder)

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
        if work.stop(_SLICE_END_SECONDS):
            loop.close()
        writer.close()
        forget_orders()
    return loop.state


def _slice(loop: TuningLoop, clock: WorkClock, happened: deque[TrainingEvent]) -> bool:
    """One slice, on the device's thread; whether the loop is done."""
    with clock:
        happened.extend(loop.run_slice(1))
    return loop.done


def _where(attempt: Attempt, stretch: Stretch) -> tuple[Path, Path]:
    """Where attempts leave checkpoints of a stretch, and where this one does."""
    place = attempt.folder / stretch.name
    return place, attempt_folder(place, attempt.held.token)
