"""Writes checkpoints on a thread of its own, so that a slow disk delays neither requests nor training.

Each attempt at a job writes into a folder of its own, named by its fencing token. A process that seemed dead
and wakes up again can then not spoil the checkpoints of whoever took the job over.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from chorus_server.errors import InvalidInputError
from chorus_server.model.mesh import DeviceMesh
from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.state import TrainingState
from prompts_store.blobs.files import Files


class CheckpointWriter:
    """Writes the newest state that was handed in; older ones that still wait are skipped.

    Args:
        folder: of this attempt.
        written: called on the writer's thread with the step of each state that was written.
        may_write: asked before each write; if False, the state is silently dropped.
        mesh: the devices that train; None means one.
    """

    def __init__(
        self,
        folder: Path,
        run: TrainingRun,
        files: Files,
        written: Callable[[int], None],
        may_write: Callable[[], bool],
        mesh: DeviceMesh | None,
    ) -> None:
        self._folder = folder
        self._training = run
        self._files = files
        self._written = written
        self._may_write = may_write
        self._mesh = mesh
        self._changed = threading.Condition()
        self._next: TrainingState | None = None
        self._writing = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="chorus-tuning-checkpoints", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def save(self, state: TrainingState) -> None:
        """Hand in a state, and return at once."""
        with self._changed:
            self._next = state.snapshot()
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error of the last failed write, if there was one."""
        if self._error is not None:
            raise self._error

    def flush(self) -> None:
        """Wait until the last state is on disk. Raises as `check` does."""
        with self._changed:
            self._changed.wait_for(
                lambda: (self._next is None and not self._writing) or self._error is not None
            )
        self.check()

    def close(self) -> None:
        """End the thread after the write that is running; a state that still waits is dropped."""
        with self._changed:
            self._closed, self._next = True, None
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._error = None  # its traceback has this writer, and the job: no cycle keeps them

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._closed)
                if self._closed:
                    return
                state, self._next, self._writing = self._next, None, True
            try:
                if state is not None and self._may_write():
                    checkpoint.write_state(
                        self._folder, self._training, state, mesh=self._mesh, files=self._files
                    )
                    self._written(state.step)
            except Exception as error:
                with self._changed:
                    self._error = error
            finally:
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()


def newest_state(
    folder: Path, run: TrainingRun, mesh: DeviceMesh | None = None
) -> tuple[TrainingState | None, str | None]:
    """The most advanced state that any attempt at the job left, and a warning if it was made elsewhere than
    on these devices (None means one).

    Raises:
        InvalidInputError: `checkpoint_mismatch`; `corrupt_checkpoint`: no undamaged state is left.
    """
    found: TrainingState | None = None
    warning: str | None = None
    broken: InvalidInputError | None = None
    for attempt in _attempts(folder):
        try:
            state = _read(attempt, run)
        except InvalidInputError as error:
            if error.code != "corrupt_checkpoint":
                raise
            broken = error
            continue
        if state is not None and (found is None or _rank(state) > _rank(found)):
            found, warning = state, checkpoint.made_elsewhere(attempt, run, mesh)
    if found is None and broken is not None:
        raise broken
    return found, warning


def _read(attempt: Path, run: TrainingRun) -> TrainingState | None:
    try:
        return checkpoint.read_state(attempt, run)
    except InvalidInputError as error:
        if error.code != "corrupt_checkpoint":
            raise
    # Its writer may be alive after all, and have replaced the state while it was read.
    return checkpoint.read_state(attempt, run)


def remove_older_attempts(folder: Path, keep: Path) -> None:
    """Remove what earlier attempts left, once this one has a state of its own. Later attempts are spared: if
    there is one, the caller has lost the job to it."""
    for attempt in _attempts(folder):
        if attempt.name < keep.name:
            shutil.rmtree(attempt, ignore_errors=True)


def attempt_folder(folder: Path, token: int) -> Path:
    """Where the attempt with this fencing token writes."""
    return folder / f"run-{token:08d}"  # of fixed width, so that names sort as tokens do


def _attempts(folder: Path) -> list[Path]:
    return sorted(folder.glob("run-*"))


def _rank(state: TrainingState) -> tuple[int, int, bool]:
    return state.step, state.evaluated_step, state.tested
