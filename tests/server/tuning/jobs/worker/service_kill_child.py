"""Workers that die: python service_kill_child.py DATA_DIR COMPILED, and on standard input a line for each

slice K        inside the k-th slice of the device
file K         inside a checkpoint, before its k-th sync or rename
before METHOD  before the store does it; `after METHOD`: when it is done and nobody knows

Each is a process forked from this one, which has imported everything and begun nothing, and comes an hour
later than the one before; answers with its exit code.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from chorus_server.engine.executor import use_persistent_cache
from chorus_server.tuning.jobs.stages.writer import CheckpointWriter
from chorus_server.tuning.training.state import TrainingState
from prompts_store.base import utc_now
from prompts_store.blobs.files import Files
from prompts_store.store import PromptStore
from tests.server.tuning.jobs import service_tools
from tests.server.tuning.jobs.service_tools import Watcher, running
from tests.server.tuning.killing_files import KillingFiles, kill


def hours_later(hours: int) -> Callable[[], datetime]:
    """The clock of a process that comes so much later: the lease of one that died before is over, and that of
    one that lives is not, however long it stands still on a busy machine."""
    return lambda: utc_now() + timedelta(hours=hours)


class KillingStore:
    """Dies before or after a method."""

    def __init__(self, store: PromptStore, when: str, method: str) -> None:
        self._store, self._when, self._method = store, when, method

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name != self._method:
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            if self._when == "before":
                kill()
            answer = method(*arguments, **named)
            kill()
            return answer

        return call


class KillingWatcher(Watcher):
    """Dies in the k-th slice."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def sliced(self) -> None:
        super().sliced()
        if self.slices == self.k:
            kill()


def write_every_checkpoint() -> None:
    """The device waits for each of its checkpoints. Else the writer skips those for which a newer one waits,
    and on a busy machine there may be too few syncs and renames."""
    hand_in = CheckpointWriter.save

    def save(writer: CheckpointWriter, state: TrainingState) -> None:
        hand_in(writer, state)
        writer.flush()

    CheckpointWriter.save = save  # type: ignore[method-assign]


def main(folder: Path, compiled: str, number: int, how: str, what: str) -> None:
    use_persistent_cache(compiled)
    store: Any = PromptStore.open(folder, clock=hours_later(number))
    files = KillingFiles(int(what)) if how == "file" else Files()
    if how == "file":
        write_every_checkpoint()
    watcher = KillingWatcher(int(what)) if how == "slice" else Watcher()
    if how in ("before", "after"):
        store = KillingStore(store, how, what)
    with running(store, folder, files=files, watcher=watcher):
        threading.Event().wait(1200)
    raise SystemExit(f"it lived on: {watcher.endings} {service_tools.TENANT}")


if __name__ == "__main__":
    for number, line in enumerate(sys.stdin, 1):
        worker = os.fork()
        if not worker:
            main(Path(sys.argv[1]), sys.argv[2], number, *line.split())
        print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)  # noqa: T201
