"""The zip container of a torch file, read without trusting it.

torch stores every entry uncompressed. A compressed entry is refused, which rules out zip bombs. Entries may
not share bytes, leave the archive's one folder, or be anything but parts of a state dict. The central
directory is parsed here because the standard library believes it: there, sizes, duplicates and overlaps are
left to the caller.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chorus_server.errors import InvalidModelError

MAX_DIRECTORY_BYTES = 16 * 1024 * 1024
_END = b"PK\x05\x06"
_END64_LOCATOR = b"PK\x06\x07"
_END64 = b"PK\x06\x06"
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_WIDE = 0xFFFFFFFF
_PERMITTED = re.compile(
    r"data\.pkl|data/[A-Za-z0-9_.\-]{1,64}|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """The bytes of one file in the archive, and where they are in the archive file."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Listed:
    name: str
    header: int
    size: int


def read_directory(path: Path) -> dict[str, Entry]:
    """Entries by name, without the archive's top folder.

    Raises:
        InvalidModelError: it is not a torch zip file; it has a legacy format (named); or an entry is one that
            a state dict does not have, or is compressed, encrypted, listed twice, or overlaps another.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        _refuse_other_formats(path, file.read(16))
        start, length, count = _find_directory(path, file, size)
        file.seek(start)
        listed = _listed(path, file.read(length), count)
        entries = {item.name: _locate(path, file, item, start) for item in listed}
    if len(entries) != len(listed):
        raise refused_torch_file(path, "lists a file twice")
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.size)):
        if entry.offset < end:
            raise refused_torch_file(path, "has files that overlap")
        end = entry.offset + entry.size
    return _without_top_folder(path, entries)


def _refuse_other_formats(path: Path, head: bytes) -> None:
    if head.startswith(b"PK\x03\x04"):
        return
    if head.startswith((b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", b"\x80\x02\x8a\n")):
        raise refused_torch_file(
            path, "is in torch's legacy format from before 1.6; save it again as safetensors"
        )
    if head[:1] == b"\x80":
        raise refused_torch_file(path, "is a bare pickle")
    if re.match(rb"(\./)?(pickle|storages|tensors|sys_info)", head):
        raise refused_torch_file(path, "is in torch's legacy tar format; save it again as safetensors")
    raise refused_torch_file(path, "is not a torch file")


def _find_directory(path: Path, file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Offset, length and number of entries of the central directory. Archive comments are refused."""
    if size < 22:
        raise refused_torch_file(path, "is cut off")
    file.seek(size - 22)
    end = file.read(22)
    if end[:4] != _END or end[20:] != b"\0\0":
        raise refused_torch_file(path, "is cut off, or has bytes after its end")
    disk, first, here, count, length, start = struct.unpack("<4H2I", end[4:20])
    limit = size - 22
    if 0xFFFF in (here, count) or _WIDE in (length, start):
        file.seek(max(0, size - 42))
        locator = file.read(20)
        if locator[:4] != _END64_LOCATOR:
            raise refused_torch_file(path, "has no zip64 record where it says so")
        limit = struct.unpack("<Q", locator[8:16])[0]
        file.seek(min(limit, size))
        record = file.read(56)
        if len(record) < 56 or record[:4] != _END64:
            raise refused_torch_file(path, "has a damaged zip64 record")
        disk, first, here, count, length, start = struct.unpack("<2I4Q", record[16:56])
    if (disk, first) != (0, 0) or here != count or length > MAX_DIRECTORY_BYTES or start + length > limit:
        raise refused_torch_file(path, "has a damaged directory")
    return start, length, count


def _listed(path: Path, directory: bytes, count: int) -> list[_Listed]:
    result: list[_Listed] = []
    position = 0
    while position < len(directory):
        if len(directory) - position < _ENTRY.size:
            raise refused_torch_file(path, "has a damaged directory")
        (magic, _, _, flags, method, _, _, _, packed, size, names, extras, comment, _, _, _, header) = (
            _ENTRY.unpack_from(directory, position)
        )
        name = directory[position + _ENTRY.size : position + _ENTRY.size + names]
        extra_at = position + _ENTRY.size + names
        extra = directory[extra_at : extra_at + extras]
        position = extra_at + extras + comment
        if magic != b"PK\x01\x02" or position > len(directory):
            raise refused_torch_file(path, "has a damaged directory")
        packed, size, header = _widened(path, extra, packed, size, header)
        if flags & 0x41 or method != 0 or packed != size:
            raise refused_torch_file(path, "has a compressed or encrypted file")
        result.append(_Listed(_text(path, name), header, size))
    if len(result) != count:
        raise refused_torch_file(path, "has a damaged directory")
    return result


def _widened(path: Path, extra: bytes, packed: int, size: int, header: int) -> tuple[int, int, int]:
    """The 64-bit values of a zip64 field, in this order, for those that are all ones."""
    wanted = [value == _WIDE for value in (size, packed, header)]
    if not any(wanted):
        return packed, size, header
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1 and length >= 8 * sum(wanted) and position + 4 + length <= len(extra):
            values = iter(struct.unpack_from(f"<{sum(wanted)}Q", extra, position + 4))
            size, packed, header = (
                next(values) if wide else value
                for wide, value in zip(wanted, (size, packed, header), strict=True)
            )
            return packed, size, header
        position += 4 + length
    raise refused_torch_file(path, "has a damaged zip64 field")


def _locate(path: Path, file: BinaryIO, item: _Listed, directory: int) -> Entry:
    """Where the data is. The local header must give the same name."""
    file.seek(item.header)
    head = file.read(_LOCAL.size)
    if len(head) < _LOCAL.size or item.header >= directory:
        raise refused_torch_file(path, "lists a file that is not there")
    magic, _, _, method, _, _, _, _, _, names, extras = _LOCAL.unpack(head)
    name = file.read(names)
    offset = item.header + _LOCAL.size + names + extras
    if magic != b"PK\x03\x04" or method != 0 or name != item.name.encode():
        raise refused_torch_file(path, "lists a file that is not there")
    if offset + item.size > directory:
        raise refused_torch_file(path, "has a file that runs past its end")
    return Entry(offset, item.size)


def _text(path: Path, name: bytes) -> str:
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError as error:
        raise refused_torch_file(path, "has a file whose name is not plain text") from error
    if "\\" in text or "\0" in text or text.startswith("/") or ".." in text.split("/"):
        raise refused_torch_file(path, "has a file whose name leads out of the archive")
    return text


def _without_top_folder(path: Path, entries: dict[str, Entry]) -> dict[str, Entry]:
    tops = {name.partition("/")[0] for name in entries}
    inner = {name.partition("/")[2]: entry for name, entry in entries.items()}
    if len(tops) != 1 or "data.pkl" not in inner:
        raise refused_torch_file(path, "has no data.pkl in one top folder: it is not a torch state dict")
    for name in inner:
        if not _PERMITTED.fullmatch(name):
            raise refused_torch_file(
                path, f"contains {name[:60]!r}, which a state dict does not have (a TorchScript archive?)"
            )
    return inner


def refused_torch_file(path: Path, reason: str) -> InvalidModelError:
    """The error for a file that is not a plain state dict."""
    return InvalidModelError(f"{path.name} {reason}", code="refused_torch_file")
