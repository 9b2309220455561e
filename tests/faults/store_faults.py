"""A store whose files and database fail at the k-th step, and the sweep over all steps.

A step is a call to the files, an SQL statement, a commit, or the moment after a commit.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from prompts_store import PromptStore
from prompts_store.blobs import Files, LocalBlobs, LocalContents
from prompts_store.database import Database
from prompts_store.errors import StoreError
from prompts_store.testing import Died, FakeClock, Fault, FaultyFiles, PowerCutFiles

MAX_STEPS = 400

Operation = Callable[[PromptStore], object]


class FaultyDatabase(Database):
    """Statements and commits are steps as well."""

    def __init__(self, engine: Engine, *, memory: bool) -> None:
        super().__init__(engine, memory=memory)
        self.files = FaultyFiles()

    @contextmanager
    def write(
        self, tenant: str, patience_seconds: float | None = None, *, alone: bool = True
    ) -> Iterator[Connection]:
        with super().write(tenant, patience_seconds, alone=alone) as connection:
            yield connection
        if self.files.fault == "die":
            self.files.count()

    def attach(self, files: FaultyFiles) -> None:
        self.files = files
        event.listen(self.engine, "before_cursor_execute", self._step)
        event.listen(self.engine, "commit", self._step)

    def _step(self, *arguments: Any) -> None:
        try:
            self.files.count()
        except OSError as error:
            raise OperationalError("", {}, sqlite3.OperationalError(error.strerror)) from error


class FewScans(FaultyFiles):
    """Of the folders `00` to `ff` that are listed one after another, the first stands for all."""

    _listing = False

    def scan(self, path: Path) -> Iterator[tuple[str, float]]:
        before, self._listing = self._listing, len(path.name) == 2
        return Files.scan(self, path) if before and self._listing else super().scan(path)


class DyingDisk(FewScans, PowerCutFiles):
    """Fails at a step, and then `cut` loses what was not synced."""

    def __init__(self, lies: frozenset[str] = frozenset()) -> None:
        FewScans.__init__(self)
        PowerCutFiles.__init__(self, lies)


def faulty_store(
    folder: Path, clock: FakeClock, files: FaultyFiles | None = None
) -> tuple[PromptStore, FaultyFiles]:
    """A store on a folder, and the files to arm."""
    files = files or FewScans()
    database = FaultyDatabase.open(folder, None)
    assert isinstance(database, FaultyDatabase)
    database.attach(files)
    blobs = LocalBlobs(folder / "blobs", files=files)
    contents = LocalContents(folder / "files", files=files)
    return PromptStore(database, blobs, clock, contents=contents), files


def attempt(store: PromptStore, files: FaultyFiles, fault: Fault, step: int, operation: Operation) -> bool:
    """Run an operation that fails at a step; whether it came through."""
    files.arm(fault, step)
    try:
        operation(store)
        finished = True
    except (Died, StoreError):
        finished = False
    files.arm(fault, 0)
    return finished


def sweep(
    store: PromptStore,
    files: FaultyFiles,
    operation: Operation,
    fault: Fault,
    *,
    look: Callable[[], object],
    old: object,
    new: object,
    again: Callable[[], object],
) -> int:
    """Fail at step 1, 2, ... until the operation comes through; answers with the number of steps.

    Args:
        look: the state as another process sees it.
        again: puts back the disk's leftovers, so that every step starts from the same disk.
    """
    for step in range(1, MAX_STEPS):
        finished = attempt(store, files, fault, step, operation)
        state = look()
        assert state in ((new,) if finished else (old, new)), f"step {step} left another state"
        if state == new:
            return step
        again()
    pytest.fail(f"not finished after {MAX_STEPS} steps")


class ShortWrites(FaultyFiles):
    """Counts the writes that wrote less than they were asked to."""

    shorts = 0

    def write(self, descriptor: int, content: memoryview) -> int:
        written = super().write(descriptor, content)
        self.shorts += written < len(content)
        return written
