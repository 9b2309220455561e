"""Reads one safetensors file by plain file reads.

The library maps the whole file, and mapped pages that were touched count as resident memory: reading 45 GB
would look like 45 GB of memory, and count as such under a container's limit. `pread` of a few MiB at a time
does not.

Format: 8 bytes little-endian header length N, N bytes of JSON `{name: {dtype, shape, data_offsets}}`, then
the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chorus_server.errors import InvalidModelError
from chorus_server.model.checkpoints.tensors import BFLOAT16, BLOCK_BYTES, HostArray, row_ranges
from chorus_server.strict_json import parse_strictly

MAX_HEADER_BYTES = 16 * 1024 * 1024

SAFETENSORS_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("bool"),
}


@dataclass(frozen=True)
class FileTensor:
    """A contiguous, row-major tensor at an offset in a file."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[HostArray]:
        row_bytes = self.nbytes // self.shape[0] if self.shape[0] else 0
        with self.path.open("rb", buffering=0) as file:
            for rows in row_ranges(self.shape, self.dtype.itemsize, block_bytes):
                count = rows.stop - rows.start
                data = read_exactly(
                    file.fileno(), self.offset + rows.start * row_bytes, count * row_bytes, self.path
                )
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def read_exactly(descriptor: int, offset: int, count: int, path: Path) -> bytearray:
    """`count` bytes from `offset`. Raises InvalidModelError if the file ends before."""
    data = bytearray(count)
    view = memoryview(data)
    done = 0
    while done < count:
        got = os.preadv(descriptor, [view[done:]], offset + done)
        if got == 0:
            raise InvalidModelError(
                f"{path.name} ends at byte {offset + done}; {count - done} bytes are missing"
            )
        done += got
    return data


def read_safetensors(path: Path) -> dict[str, FileTensor]:
    """The tensors of one file, by name. Only the header is read.

    Raises:
        InvalidModelError: it is not a safetensors file; its header is over 16 MiB or not JSON; a name comes
            twice; a dtype is unknown; or offsets overlap, leave gaps, contradict the shape or pass the end of
            the file.
    """
    size = path.stat().st_size
    header, start = _read_header(path, size)
    tensors: dict[str, FileTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor, span = _entry(path, name, entry, start)
        tensors[name] = tensor
        spans.append((*span, name))
    _check_spans(path, sorted(spans), size - start)
    return tensors


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise InvalidModelError(
                f"{path.name} is not a safetensors file, or is cut off: its header claims {length} bytes "
                f"of a file of {size} (limit {MAX_HEADER_BYTES})"
            )
        text = file.read(length)
    try:
        header = parse_strictly(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path.name} has a header that is not valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise InvalidModelError(f"{path.name} has a header that is not a JSON object")
    return header, 8 + length


def _entry(path: Path, name: str, entry: Any, start: int) -> tuple[FileTensor, tuple[int, int]]:
    try:
        dtype = SAFETENSORS_DTYPES[entry["dtype"]]
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        valid = all(type(value) is int and value >= 0 for value in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidModelError(
            f"{path.name} describes tensor {name} in a way that cannot be read"
        ) from error
    if not valid or len(shape) > 8 or end - begin != _bytes(shape, dtype):
        raise InvalidModelError(
            f"{path.name}: tensor {name} has offsets that do not fit its shape {list(shape)}"
        )
    return FileTensor(path, start + begin, shape, dtype), (begin, end)


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    count = dtype.itemsize
    for extent in shape:  # Python integers, because a product of hostile extents must not overflow
        count *= extent
    return count


def _check_spans(path: Path, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for begin, end, name in spans:
        if begin != position:
            raise InvalidModelError(
                f"{path.name}: the data of tensor {name} overlaps another or leaves a gap"
            )
        position = end
    if position != data_bytes:
        raise InvalidModelError(
            f"{path.name} has {data_bytes} bytes of data, but its header describes {position}"
        )
