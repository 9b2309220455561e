"""Reads bytes from files and folders: a limited number, never through a link, never from a device or a
pipe."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.text import shown

# Do not follow a link, and do not hang when opening a pipe that nobody writes to.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def is_folder(path: Path) -> bool:
    """Whether the path is a folder.

    Raises:
        ArtifactError: `symlink` or `file_unreadable`.
    """
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError) as error:
        raise _unreadable(path.name, error) from None
    if stat.S_ISLNK(mode):
        raise _link(path.name)
    return stat.S_ISDIR(mode)


def read_file(path: Path | str, *, max_bytes: int, folder: int | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        path: path of the file; inside `folder`, if that is given, a bare name.
        max_bytes: the most bytes to read.
        folder: descriptor of an open folder.

    Raises:
        ArtifactError: `symlink`, `file_too_large` or `file_unreadable`.
    """
    name = Path(path).name
    try:
        if stat.S_ISLNK(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _link(name)
        with os.fdopen(os.open(path, _FLAGS, dir_fd=folder), "rb") as file:
            _check_status(os.fstat(file.fileno()), name, max_bytes)
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None
    if len(data) > max_bytes:
        raise too_large(len(data), max_bytes)
    return data


@contextmanager
def open_folder(path: Path) -> Iterator[int]:
    """A folder's descriptor, so that every file comes from the same folder even if it is moved meanwhile.

    Raises:
        ArtifactError: `file_unreadable`.
    """
    try:
        descriptor = os.open(path, _FLAGS | os.O_DIRECTORY)
    except OSError as error:
        raise _unreadable(path.name, error) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def exists(name: str, folder: int) -> bool:
    """Whether an open folder has an entry of this name, of whatever kind."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(name, error) from None
    return True


def too_large(size: int, max_bytes: int) -> Exception:
    """The error for a file above the size limit."""
    return refusal(
        Reason.FILE_TOO_LARGE,
        f"The file has {size} bytes or more; the limit is {max_bytes}. A prompt is one float32 "
        "array; upload only that.",
    )


def _check_status(status: Any, name: str, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise refusal(Reason.FILE_UNREADABLE, f"{shown(name)} is not a regular file.")
    if status.st_size > max_bytes:
        raise too_large(status.st_size, max_bytes)


def _link(name: str) -> Exception:
    return refusal(Reason.SYMLINK, f"{shown(name)} is a symbolic link; copy the files themselves (cp -rL).")


def _unreadable(name: str, error: Exception) -> Exception:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return refusal(Reason.FILE_UNREADABLE, f"{shown(name)} cannot be read: {cause}.")
