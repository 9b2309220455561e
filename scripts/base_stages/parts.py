"""Packs a folder into files of a bounded size, for machines that return only so much: `cat part-* | tar
x`."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO, cast


class _Parts:
    """The file object that tarfile writes to: part-00, part-01, ..."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._count = 0
        self._left = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            if self._left == 0:
                self._count += 1
                self._left = self._limit
            piece = view[: self._left]
            with (self._folder / f"part-{self._count - 1:02}").open("ab") as file:
                file.write(piece)
            self._left -= len(piece)
            view = view[len(piece) :]
        return len(data)


def write_parts(sources: list[Path], folder: Path, limit_bytes: int) -> None:
    """Pack files and folders into one archive, in parts of at most `limit_bytes`. Older parts there are
    replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("part-*"):
        old.unlink()
    with tarfile.open(fileobj=cast(IO[bytes], _Parts(folder, limit_bytes)), mode="w|") as archive:
        for source in sources:
            archive.add(source, arcname=source.name)
