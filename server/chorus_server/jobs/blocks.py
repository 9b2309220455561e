"""What a job has worked off so far, a file for each block, so that a later attempt goes on from there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prompts_store.blobs.files import Files


class Blocks:
    """The finished blocks of one job. Each appears whole or not at all, and is never written again.

    Two processes may have one job's folder, if one of them has lost its lease and does not know it yet: they
    write the same blocks with the same content.

    Args:
        folder: of the job.
        files: writes; tests pass their own.
    """

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self._folder = folder
        self._files = files or Files()

    def have(self, number: int) -> bool:
        """Whether a block is finished."""
        return self._path(number).exists()

    def keep(self, number: int, content: bytes) -> None:
        """Store a finished block. When this returns, it survives a power cut.

        Raises:
            OSError: the disk failed.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(self._files, self._path(number), content)

    def finished(self, count: int) -> Iterator[bytes]:
        """The contents of the first blocks in order.

        Raises:
            OSError: one is not there.
        """
        return (self._path(number).read_bytes() for number in range(count))

    def _path(self, number: int) -> Path:
        return self._folder / f"block-{number:06d}"


def write_whole(files: Files, path: Path, content: bytes) -> None:
    """Write a file that appears under its name whole or not at all, and survives a power cut from then on.

    Raises:
        OSError: the disk failed; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    descriptor = files.create(temporary)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[files.write(descriptor, rest) :]
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.rename(temporary, path)
    except BaseException:
        with suppress(OSError):  # raise the first error
            files.unlink(temporary)
        raise
    files.sync_folder(path.parent)
