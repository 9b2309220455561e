"""What can be uploaded as training data: a file, its bytes, or rows. A file is never held in memory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from chorus.errors import InvalidArgumentError

PIECE_BYTES = 256 * 1024

Rows = Iterable[Mapping[str, Any]]
DataSource = str | os.PathLike[str] | bytes | Rows
"""A path, the bytes of a file, or rows."""


class Content(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body of known length, read in pieces, and again if it must be sent again.

    Attributes:
        size: in bytes; more is never sent.
    """

    def __init__(self, source: Path | bytes, size: int) -> None:
        self._source = source
        self.size = size

    def __iter__(self) -> Iterator[bytes]:
        if isinstance(self._source, bytes):
            yield from (self._source[at : at + PIECE_BYTES] for at in range(0, self.size, PIECE_BYTES))
            return
        left = self.size
        with self._source.open("rb") as file:
            while left:
                piece = file.read(min(PIECE_BYTES, left))
                if not piece:
                    raise InvalidArgumentError(
                        f"{str(self._source)!r} became shorter while it was sent; try again.", field="file"
                    )
                left -= len(piece)
                yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self)
        if isinstance(self._source, bytes):
            for piece in pieces:
                yield piece
            return
        while piece := await asyncio.to_thread(next, pieces, b""):
            yield piece


@dataclass(frozen=True, slots=True)
class DataUpload:
    """A file to send: its content, and its name, whose ending tells the format."""

    name: str
    content: Content


def data_upload(source: DataSource, name: str | None = None, field: str = "file") -> DataUpload:
    """Prepare whatever the caller has for sending.

    Args:
        source: path of a file, the bytes of one, or rows, which become JSON Lines.
        name: the file's name; required for bytes, by default the path's or `rows.jsonl`.
        field: the argument's name, for errors.

    Raises:
        InvalidArgumentError: there is no such file, there are no rows, a row is not JSON, or bytes have no
            name.
    """
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source), name, field)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if name is None:
            raise InvalidArgumentError(
                "Bytes have no name: give name=, such as 'train.tsv'; its ending tells the format.",
                field="name",
            )
        return DataUpload(name, Content(bytes(source), len(source)))
    return DataUpload(name or "rows.jsonl", _from_rows(source, field))


def _from_path(path: Path, name: str | None, field: str) -> DataUpload:
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is not there"
            raise InvalidArgumentError(f"{str(path)!r} {what}; name a file.", field=field)
        with path.open("rb"):
            return DataUpload(name or path.name, Content(path, path.stat().st_size))
    except OSError as error:
        raise InvalidArgumentError(
            f"{str(path)!r} cannot be read: {error.strerror or error}.", field=field
        ) from error


def _from_rows(rows: Any, field: str) -> Content:
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise InvalidArgumentError(
            f"{field} is a path, bytes, or rows such as [{{'text': ..., 'label': ...}}]; "
            f"{type(rows).__name__} is not.",
            field=field,
        )
    lines = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InvalidArgumentError(
                f"Row {number} is not an object but {type(row).__name__}.", field=field
            )
        try:
            lines.append(json.dumps(dict(row), allow_nan=False, ensure_ascii=False).encode() + b"\n")
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidArgumentError(
                f"Row {number} cannot be written as JSON: {error}.", field=field
            ) from error
    if not lines:
        raise InvalidArgumentError("There are no rows.", field=field)
    content = b"".join(lines)
    return Content(content, len(content))
