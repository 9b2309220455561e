"""Fakes and examples for tests of code that uses the store. They need no test framework."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prompts_store.blobs import Files
from prompts_store.digests import prompt_digest
from prompts_store.files.records import DataFile
from prompts_store.records import FittedCalibration, PromptManifest
from prompts_store.store import PromptStore

Fault = Literal["die", "EIO", "ENOSPC", "short"]


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def __call__(self) -> datetime:
        """The present."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)


def example_prompt(
    seed: int, *, length: int = 3, width: int = 5, **manifest: Any
) -> tuple[npt.NDArray[np.float32], PromptManifest]:
    """Values and a manifest that belong together.

    Args:
        seed: another seed gives other values.
        manifest: values for further fields of `PromptManifest`.
    """
    values = np.random.default_rng(seed).standard_normal((length, width), dtype=np.float32)
    return values, PromptManifest(prompt_digest(values), length, width, **manifest)


def example_calibration(temperature: float = 2.0, **fields: Any) -> FittedCalibration:
    """What might have been fitted for two labels.

    Args:
        fields: values for further fields of `FittedCalibration`.
    """
    known = {"labels": ("no", "yes"), "matrix_dtype": "float32", "prior": None, "rows": 50} | fields
    return FittedCalibration(temperature=temperature, **known)


def example_file(
    store: PromptStore, content: bytes, *, name: str = "train.jsonl", tenant: str = "acme", made_by: str = ""
) -> DataFile:
    """Upload a data file."""
    with store.write_file(tenant, name, made_by=made_by, max_bytes=len(content)) as writer:
        writer.write(content)
        return writer.commit()


class Died(BaseException):
    """The process counts as dead from here on. No handler for ordinary errors may catch this."""


class FaultyFiles(Files):
    """Files that fail at the k-th operation that changes the disk.

    Attributes:
        step: number of operations so far. With `fail_at` 0 they are only counted.
    """

    def __init__(self, fault: Fault = "die", fail_at: int = 0) -> None:
        self.fault = fault
        self.fail_at = fail_at
        self.step = 0
        self._dead = False

    def arm(self, fault: Fault, fail_at: int) -> None:
        """Count from now, and fail at this operation."""
        self.fault, self.fail_at, self.step, self._dead = fault, fail_at, 0, False

    def count(self) -> bool:
        """Take a step. True if it must be a short write.

        Raises:
            Died: this is the step, or the process died before.
            OSError: this is the step, with another fault.
        """
        if self._dead:
            raise Died
        self.step += 1
        if self.step != self.fail_at:
            return False
        if self.fault == "short":
            return True
        if self.fault == "die":
            self._dead = True
            raise Died
        code = errno.EIO if self.fault == "EIO" else errno.ENOSPC
        raise OSError(code, os.strerror(code))

    def create(self, path: Path) -> int:
        """See `Files`."""
        self.count()
        return super().create(path)

    def write(self, descriptor: int, content: memoryview) -> int:
        """See `Files`. A short write writes one byte."""
        return super().write(descriptor, content[:1] if self.count() else content)

    def set_time(self, descriptor: int, seconds: float) -> None:
        """See `Files`."""
        self.count()
        super().set_time(descriptor, seconds)

    def sync(self, descriptor: int) -> None:
        """See `Files`."""
        self.count()
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """See `Files`."""
        self.count()
        super().rename(source, target)

    def sync_folder(self, path: Path) -> None:
        """See `Files`."""
        self.count()
        super().sync_folder(path)

    def make_folder(self, path: Path) -> None:
        """See `Files`."""
        self.count()
        super().make_folder(path)

    def unlink(self, path: Path) -> None:
        """See `Files`."""
        self.count()
        super().unlink(path)

    def read(self, path: Path) -> bytes:
        """See `Files`."""
        self.count()
        return super().read(path)

    def scan(self, path: Path) -> Iterator[tuple[str, float]]:
        """See `Files`."""
        self.count()
        return super().scan(path)


def file_bytes(store: PromptStore, tenant: str, file_id: str) -> bytes:
    """What a data file holds."""
    with store.local_file(tenant, file_id) as path:
        return path.read_bytes()


class PowerCutFiles(Files):
    """Files on a disk that forgets what was not synced.

    `cut` puts the folder into the worst state that the operations so far allow: a file that was not synced is
        empty, and a name that was not synced is unchanged.

    Args:
        lies: operations that only pretend to sync (`sync`, `sync_folder`), for a control.
    """

    def __init__(self, lies: frozenset[str] = frozenset()) -> None:
        self._lies = lies
        self._unsynced: dict[int, Path] = {}
        self._torn: set[Path] = set()
        self._renamed: dict[Path, bytes | None] = {}

    def create(self, path: Path) -> int:
        """See `Files`."""
        descriptor = super().create(path)
        self._unsynced[descriptor] = path
        self._torn.add(path)
        return descriptor

    def sync(self, descriptor: int) -> None:
        """See `Files`."""
        if "sync" not in self._lies:
            self._torn.discard(self._unsynced[descriptor])

    def rename(self, source: Path, target: Path) -> None:
        """See `Files`."""
        before = target.read_bytes() if target.exists() else None
        super().rename(source, target)
        self._renamed.setdefault(target, before)
        if source in self._torn:
            self._torn.discard(source)
            self._torn.add(target)

    def sync_folder(self, path: Path) -> None:
        """See `Files`."""
        if "sync_folder" not in self._lies:
            for target in [target for target in self._renamed if target.parent == path]:
                del self._renamed[target]

    def cut(self) -> None:
        """Lose what was not synced."""
        for path in self._torn:
            if path.exists():
                path.write_bytes(b"")
        for target, before in self._renamed.items():
            if before is None:
                target.unlink(missing_ok=True)
            else:
                target.write_bytes(before)
