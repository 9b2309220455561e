"""The file operations that the local folder is made of, one system call each.

A test hands in another `Files` that fails at the k-th call: see tests/faults.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class Files:
    """The operating system's files. Every method raises OSError as the system call does."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; fails where one exists. Answers with its descriptor.

        What root makes belongs to the folder's owner: a server that runs as somebody else must read it.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:
            with suppress(OSError):
                owner = path.parent.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def write(self, descriptor: int, content: memoryview) -> int:
        """Write a part of the content; answers with how many bytes were taken."""
        return os.write(descriptor, content)

    def lock(self, descriptor: int) -> None:
        """Say that a living process is at work on a file; closing it, or dying, ends that.

        Best effort: some network disks know no locks.
        """
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_locked(self, path: Path) -> bool:
        """Whether a living process, this one included, has locked a file; False where there is none."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
        finally:
            os.close(descriptor)
        return False

    def set_time(self, descriptor: int, seconds: float) -> None:
        """Set a file's times, in seconds since 1970."""
        os.utime(descriptor, (seconds, seconds))

    def sync(self, descriptor: int) -> None:
        """Wait until a file's bytes are on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, replacing what had it, at one instant."""
        source.replace(target)

    def sync_folder(self, path: Path) -> None:
        """Wait until a folder's names are on the disk."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, path: Path) -> None:
        """Make a folder, and those above it; it may be there already."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def touch(self, path: Path, seconds: float) -> None:
        """Set the times of a file by its name, in seconds since 1970."""
        os.utime(path, (seconds, seconds))

    def read(self, path: Path) -> bytes:
        """All bytes of a file."""
        return path.read_bytes()

    def size(self, path: Path) -> int:
        """The bytes of a file, without reading them."""
        return path.stat().st_size

    def exists(self, path: Path) -> bool:
        """Whether a file is there."""
        return path.exists()

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def scan(self, path: Path) -> Iterator[tuple[str, float]]:
        """Names in a folder with their times, in seconds since 1970; none where there is no folder."""
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    try:
                        yield entry.name, entry.stat().st_mtime
                    except FileNotFoundError:
                        # Gone since the folder was read.
                        continue
        except FileNotFoundError:
            return
