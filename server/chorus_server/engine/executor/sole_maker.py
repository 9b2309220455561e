"""One process at a time makes a file in a shared folder; the others wait for it.

The lock is the kernel's, on a file beside the one that is made: if its holder is killed, it is free at once.
Where a folder cannot be locked (read-only, or a file system without locks), nobody waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_LOOK_SECONDS = 0.1

_SUFFIX = ".making"


class BusyError(Exception):
    """Another process makes it."""


@contextlib.contextmanager
def sole_maker(path: Path, seconds: float) -> Iterator[None]:
    """Make `path` within the block, alone.

    Args:
        seconds: how long to wait for another maker; with 0, not at all.

    Raises:
        BusyError: another process still makes it.
    """
    lock = path.with_suffix(_SUFFIX)
    pause, until = threading.Event(), time.monotonic() + seconds
    while (held := _take(lock)) is None:
        if time.monotonic() >= until:
            raise BusyError(path.name)
        pause.wait(_LOOK_SECONDS)
    try:
        yield
    finally:
        if held >= 0:
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)  # before it is free: `_take` looks whether it is still there
            os.close(held)


def _take(lock: Path) -> int | None:
    """A descriptor that holds the lock; -1 if there can be none, None if another process has it."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(held).st_ino == lock.stat().st_ino:
            return held
    except (BlockingIOError, FileNotFoundError):  # held, or its holder has just removed it
        pass
    except OSError:
        os.close(held)
        return -1
    os.close(held)
    return None
