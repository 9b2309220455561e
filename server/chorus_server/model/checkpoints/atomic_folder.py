"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chorus_server.errors import InvalidModelError


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`. On success flush it to the disk and rename it to `target`.

    An exception removes it. A killed process leaves `.NAME.*.partial`, which nothing reads and which may be
    deleted.

    Raises:
        InvalidModelError: `target` exists, or its parent cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise InvalidModelError(
            f"{target} exists already; choose another folder or remove it", field="target"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    except OSError as error:
        raise InvalidModelError(
            f"cannot write into {target.parent}: {error.strerror}", field="target"
        ) from error
    temporary = Path(made)
    temporary.chmod(0o755)
    try:
        yield temporary
        flush_tree(temporary)
        temporary.rename(target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def flush_tree(folder: Path) -> None:
    """fsync every file and folder below, and the folder itself."""
    for parent, _, files in os.walk(folder, topdown=False):
        for file in files:
            _flush(Path(parent) / file)
        _flush(Path(parent))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
