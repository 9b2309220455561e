"""The file operations of the local folder, one system call each.

Tests use another `Files` that fails at the k-th call: see tests/faults.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prompts_store.durable import sync_folder


class Files:
    """The operating system's files. Every method raises OSError like the system call."""

    def create(self, path: Path) -> int:
        """Open a new file for writing; fails if it exists. Returns its descriptor.

        A file that root makes is given to the folder's owner, because a server that runs as that user must
        read it.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:
            with suppress(OSError):
                owner = path.parent.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def write(self, descriptor: int, content: memoryview) -> int:
        """Write a part of the content. Returns how many bytes were written."""
        return os.write(descriptor, content)

    def lock(self, descriptor: int) -> None:
        """Show that a living process is working on a file. Closing the file or dying ends that.

        Best effort: some network disks have no locks.
        """
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_locked(self, path: Path) -> bool:
        """Whether a living process, including this one, has locked a file; False if there is no such file."""
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

    def hold(self, path: Path) -> int | None:
        """Open a file for reading, so that `remove_unheld` leaves it; closing it ends that. Returns its
        descriptor, or None if there is no such file. It counts as used now."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        with suppress(OSError):  # it was removed, perhaps, before this held it
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                os.utime(descriptor)
                return descriptor
        os.close(descriptor)
        return None

    def remove_unheld(self, path: Path) -> bool:
        """Remove a file unless a living process holds or writes it. Whether it is gone."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                path.unlink()
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True
        finally:
            os.close(descriptor)
        return True

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
        """Give a file its name in one instant, replacing the file that had it."""
        source.replace(target)

    def sync_folder(self, path: Path) -> None:
        """Wait until a folder's names are on the disk."""
        sync_folder(path)

    def make_folder(self, path: Path) -> None:
        """Create a folder, and those above it. It may exist already."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, path: Path) -> bytes:
        """All bytes of a file."""
        return path.read_bytes()

    def size(self, path: Path) -> int:
        """The size of a file in bytes, without reading it."""
        return path.stat().st_size

    def exists(self, path: Path) -> bool:
        """Whether a file exists."""
        return path.exists()

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def scan(self, path: Path) -> Iterator[tuple[str, float]]:
        """Names in a folder with their times, in seconds since 1970; none if there is no folder."""
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    try:
                        yield entry.name, entry.stat().st_mtime
                    except FileNotFoundError:
                        # It was removed after the folder was read.
                        continue
        except FileNotFoundError:
            return
