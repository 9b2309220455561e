"""Zip archives from strangers, read without extracting. Only a flat, plain, contiguous archive of a few files
is accepted.

Format (PKWARE APPNOTE 6.3): local header and data of each entry, the central directory, the end record.
Python's `zipfile` is not used for reading, because it allocates an object for each entry before anybody can
count them, and finds archives behind other content. Here the end record is the last 22 bytes of the file, the
first entry begins at byte 0, and nothing lies between entries. So the file cannot be two things at once, and
no data is claimed twice.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.text import shown

MAX_ENTRIES = 64
MAX_NAME_BYTES = 255

_LOCAL_MAGIC = b"PK\x03\x04"
_END_MAGIC = b"PK\x05\x06"
_CENTRAL_MAGIC = b"PK\x01\x02"
_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_END = struct.Struct("<4s4H2IH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")

_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_PATCHED = 0x0020
_DESCRIPTOR = 0x0008
_PATH = re.compile(r"[/\\:\x00-\x1f\x7f]")


class _Central(NamedTuple):
    """An entry's fields in the central directory, in the order in which the format has them."""

    magic: bytes
    made_by: int
    needs: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    stored: int
    size: int
    name_bytes: int
    extra_bytes: int
    comment_bytes: int
    disk: int
    internal: int
    attributes: int
    start: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.crc, self.stored, self.size


class _Local(NamedTuple):
    """An entry's fields in front of its data, in the order in which the format has them."""

    magic: bytes
    needs: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    stored: int
    size: int
    name_bytes: int
    extra_bytes: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.crc, self.stored, self.size


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file as the central directory describes it; checked against its local header.

    Attributes:
        name: a name without a path.
        method: 0 stored, 8 deflated.
        crc: CRC-32 of the content.
        stored_bytes: size in the archive.
        size_bytes: claimed size of the content.
        start: where its data begins.
    """

    name: str
    method: int
    crc: int
    stored_bytes: int
    size_bytes: int
    start: int


def is_zip(data: bytes) -> bool:
    """Whether a file begins like a zip."""
    return data.startswith((_LOCAL_MAGIC, _END_MAGIC))


def first_name(data: bytes) -> bytes:
    """The name of the first entry of a zip, unchecked. It shows what made the zip before it is read."""
    return data[30 : 30 + int.from_bytes(data[26:28], "little")]


def read_directory(data: bytes) -> dict[str, ZipEntry]:
    """The entries by name. No content is inflated.

    Raises:
        ArtifactError: `zip_invalid`, `zip_entries`, `zip_path`, `zip_duplicate`, `zip_encrypted`,
            `zip_compression`, `symlink`.
    """
    count, position = _end_record(data)
    directory_start, directory_end = position, len(data) - _END.size
    entries: dict[str, ZipEntry] = {}
    spans: list[tuple[int, int]] = []
    for _ in range(count):
        entry, span, position = _entry(data, position, directory_start, directory_end)
        if any(entry.name.casefold() == name.casefold() for name in entries):
            raise refusal(Reason.ZIP_DUPLICATE, f"The zip contains {shown(entry.name)} twice.")
        entries[entry.name] = entry
        spans.append(span)
    if position != directory_end:
        _invalid("its directory is longer than its entries")
    _check_contiguous(data, sorted(spans), list(entries.values()), directory_start)
    return entries


def read_entry(data: bytes, entry: ZipEntry, *, max_bytes: int) -> bytes:
    """The content of one entry. It is never longer than the entry claims, nor than `max_bytes`.

    Raises:
        ArtifactError: `zip_bomb` or `zip_invalid`.
    """
    if entry.size_bytes > max_bytes:
        raise refusal(
            Reason.ZIP_BOMB,
            f"{shown(entry.name)} would unpack to {entry.size_bytes} bytes; the limit is {max_bytes}.",
        )
    packed = data[entry.start : entry.start + entry.stored_bytes]
    content = packed if entry.method == _STORED else _inflate(packed, entry)
    if len(content) != entry.size_bytes or zlib.crc32(content) != entry.crc:
        _invalid(f"{shown(entry.name)} does not match its size and checksum")
    return content


def _end_record(data: bytes) -> tuple[int, int]:
    if len(data) < _END.size or data[-_END.size :][:4] != _END_MAGIC:
        _invalid("it does not end with its directory (cut off, or with a comment or other bytes after it)")
    _, disk, start_disk, here, total, size, start, comment = _END.unpack_from(data, len(data) - _END.size)
    if disk or start_disk or here != total or comment or total == 0xFFFF or start == 0xFFFFFFFF:
        _invalid("it is in several parts, or of the 64-bit kind")
    if total > MAX_ENTRIES:
        raise refusal(Reason.ZIP_ENTRIES, f"The zip contains {total} files; the limit is {MAX_ENTRIES}.")
    if start + size != len(data) - _END.size:
        _invalid("its directory is not where its end record says")
    return total, start


def _entry(
    data: bytes, position: int, directory_start: int, directory_end: int
) -> tuple[ZipEntry, tuple[int, int], int]:
    """The central entry at `position`, the span of bytes that belongs to it, and where the next one
    begins."""
    if position + _CENTRAL.size > directory_end:
        _invalid("its directory is cut off")
    central = _Central._make(_CENTRAL.unpack_from(data, position))
    names = position + _CENTRAL.size
    after = names + central.name_bytes + central.extra_bytes + central.comment_bytes
    if central.magic != _CENTRAL_MAGIC or after > directory_end or central.disk:
        _invalid("its directory is damaged")
    raw_name = data[names : names + central.name_bytes]
    name = _checked_name(raw_name)
    _check_kind(name, central)
    content = _content_start(data, central, raw_name, directory_start)
    entry = ZipEntry(name, central.method, central.crc, central.stored, central.size, content)
    return entry, (central.start, content + central.stored), after


def _content_start(data: bytes, central: _Central, raw_name: bytes, directory_start: int) -> int:
    """Where an entry's data begins, after a local header that must agree with the directory."""
    if central.start + _LOCAL.size > directory_start:
        _invalid(f"{shown(raw_name)} lies outside the file")
    local = _Local._make(_LOCAL.unpack_from(data, central.start))
    names = central.start + _LOCAL.size
    # If the zip was written to a stream, an entry's sizes come after its data and are zero before it.
    after_data = central.flags & _DESCRIPTOR and local.sizes == (0, 0, 0)
    if (
        local.magic != _LOCAL_MAGIC
        or (local.flags, local.method) != (central.flags, central.method)
        or not (after_data or local.sizes == central.sizes)
        or data[names : names + local.name_bytes] != raw_name
    ):
        _invalid(f"the two descriptions of {shown(raw_name)} differ")
    return names + local.name_bytes + local.extra_bytes


def _checked_name(raw: bytes) -> str:
    if not 1 <= len(raw) <= MAX_NAME_BYTES:
        raise refusal(
            Reason.ZIP_PATH, f"A name in the zip has {len(raw)} bytes; 1 to {MAX_NAME_BYTES} is allowed."
        )
    name = raw.decode("utf-8", errors="replace")
    if _PATH.search(name) or name in (".", "..") or "�" in name:
        raise refusal(
            Reason.ZIP_PATH,
            f"The zip contains {shown(name)}; it must contain plain files without folders. Zip the files "
            "themselves: zip -j prompt.zip FOLDER/adapter_config.json FOLDER/adapter_model.safetensors",
        )
    return name


def _check_kind(name: str, central: _Central) -> None:
    if central.flags & _ENCRYPTED:
        raise refusal(Reason.ZIP_ENCRYPTED, f"{shown(name)} is encrypted; zip it without a password.")
    if central.method not in (_STORED, _DEFLATED) or central.flags & _PATCHED:
        raise refusal(
            Reason.ZIP_COMPRESSION,
            f"{shown(name)} is compressed by method {central.method}; use deflate or store it.",
        )
    # The upper half is a Unix mode, or zero.
    if stat.S_IFMT(central.attributes >> 16) not in (0, stat.S_IFREG):
        raise refusal(
            Reason.SYMLINK, f"{shown(name)} is a link or another special file; zip the file itself."
        )


def _check_contiguous(data: bytes, spans: list[tuple[int, int]], entries: list[ZipEntry], end: int) -> None:
    """Every byte before the directory must belong to exactly one entry; a data descriptor belongs to the
    entry before it."""
    by_end = {entry.start + entry.stored_bytes: entry for entry in entries}
    position = 0
    for start, stop in spans:
        if start != position:
            position = _after_descriptor(data, by_end.get(position), position)
        if start != position:
            _invalid("its entries overlap or leave gaps")
        position = stop
    if position != end and _after_descriptor(data, by_end.get(position), position) != end:
        _invalid("its entries overlap or leave gaps")


def _after_descriptor(data: bytes, entry: ZipEntry | None, position: int) -> int:
    """Where a data descriptor of `entry` at `position` ends; `position` itself if there is none."""
    if entry is None:
        return position
    plain = struct.pack("<3I", entry.crc, entry.stored_bytes, entry.size_bytes)
    for descriptor in (_DESCRIPTOR_MAGIC + plain, plain):
        if data.startswith(descriptor, position):
            return position + len(descriptor)
    return position


def _inflate(packed: bytes, entry: ZipEntry) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than claimed is enough to detect a lie, and no more is ever inflated.
        content = stream.decompress(packed, entry.size_bytes + 1)
    except zlib.error:
        _invalid(f"{shown(entry.name)} cannot be unpacked")
    if len(content) > entry.size_bytes:
        raise refusal(Reason.ZIP_BOMB, f"{shown(entry.name)} unpacks to more than the zip says.")
    if not stream.eof or stream.unused_data:
        _invalid(f"{shown(entry.name)} is cut off or has bytes after it")
    return content


def _invalid(problem: str) -> NoReturn:
    raise refusal(Reason.ZIP_INVALID, f"The zip is not plain and complete: {problem}. Make it again.")
