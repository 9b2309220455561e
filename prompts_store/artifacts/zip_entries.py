"""Zip archives from strangers, read without extracting: a flat, plain, contiguous archive of a few files or
nothing.

Format (PKWARE APPNOTE 6.3): local header and data of each entry, the central directory, the end record.
Python's `zipfile` is not used for reading: it allocates an object an entry before anybody can count them, and
finds archives behind other content. Here the end record is the file's last 22 bytes, the first entry begins
at byte 0 and nothing lies between entries, so the file cannot be two things at once and no data is claimed
twice.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from dataclasses import dataclass
from typing import NoReturn

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.text import shown

LOCAL_MAGIC = b"PK\x03\x04"
END_MAGIC = b"PK\x05\x06"
MAX_ENTRIES = 64
MAX_NAME_BYTES = 255

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


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One file as the central directory describes it, checked against its local header.

    Attributes:
        name: no path in it.
        method: 0 stored, 8 deflated.
        crc: CRC-32 of the content.
        stored_bytes: in the archive.
        size_bytes: of the content, as claimed.
        start: where its data begins.
    """

    name: str
    method: int
    crc: int
    stored_bytes: int
    size_bytes: int
    start: int


def read_directory(data: bytes) -> dict[str, ZipEntry]:
    """The entries by name; no content is inflated.

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
            raise refusal(Reason.ZIP_DUPLICATE, f"The zip holds {shown(entry.name)} twice.")
        entries[entry.name] = entry
        spans.append(span)
    if position != directory_end:
        _invalid("its directory is longer than its entries")
    _check_contiguous(data, sorted(spans), list(entries.values()), directory_start)
    return entries


def read_entry(data: bytes, entry: ZipEntry, *, max_bytes: int) -> bytes:
    """The content of one entry; never more than it claims, which is never more than `max_bytes`.

    Raises:
        ArtifactError: `zip_bomb` or `zip_invalid`.
    """
    if entry.size_bytes > max_bytes:
        raise refusal(
            Reason.ZIP_BOMB,
            f"{shown(entry.name)} would unpack to {entry.size_bytes} bytes; {max_bytes} is the most.",
        )
    packed = data[entry.start : entry.start + entry.stored_bytes]
    content = packed if entry.method == _STORED else _inflate(packed, entry)
    if len(content) != entry.size_bytes or zlib.crc32(content) != entry.crc:
        _invalid(f"{shown(entry.name)} does not match its size and checksum")
    return content


def _end_record(data: bytes) -> tuple[int, int]:
    if len(data) < _END.size or data[-_END.size :][:4] != END_MAGIC:
        _invalid("it does not end with its directory (cut off, or with a comment or other bytes after it)")
    _, disk, start_disk, here, total, size, start, comment = _END.unpack_from(data, len(data) - _END.size)
    if disk or start_disk or here != total or comment or total == 0xFFFF or start == 0xFFFFFFFF:
        _invalid("it is in several parts, or of the 64-bit kind")
    if total > MAX_ENTRIES:
        raise refusal(Reason.ZIP_ENTRIES, f"The zip holds {total} files; {MAX_ENTRIES} is the most.")
    if start + size != len(data) - _END.size:
        _invalid("its directory is not where its end record says")
    return total, start


def _entry(
    data: bytes, position: int, directory_start: int, directory_end: int
) -> tuple[ZipEntry, tuple[int, int], int]:
    """The central entry at `position`, the span of bytes that it owns, and where the next one begins."""
    if position + _CENTRAL.size > directory_end:
        _invalid("its directory is cut off")
    (
        magic,
        made_by,
        _,
        flags,
        method,
        _,
        _,
        crc,
        packed,
        size,
        name_length,
        extra,
        comment,
        disk,
        _,
        attributes,
    ) = _CENTRAL.unpack_from(data, position)[:16]
    start = _CENTRAL.unpack_from(data, position)[16]
    after = position + _CENTRAL.size + name_length + extra + comment
    if magic != _CENTRAL_MAGIC or after > directory_end or disk:
        _invalid("its directory is damaged")
    raw_name = data[position + _CENTRAL.size :][:name_length]
    name = _checked_name(raw_name)
    _check_kind(name, flags, method, made_by, attributes)
    if start + _LOCAL.size > directory_start:
        _invalid(f"{shown(name)} lies outside of it")
    local = _LOCAL.unpack_from(data, start)
    content = start + _LOCAL.size + local[9] + local[10]
    expected = (0, 0, 0) if flags & _DESCRIPTOR and local[6:9] == (0, 0, 0) else (crc, packed, size)
    named = data[start + _LOCAL.size :][: local[9]]
    if (
        local[0] != LOCAL_MAGIC
        or local[2:4] != (flags, method)
        or named != raw_name
        or local[6:9] != expected
    ):
        _invalid(f"the two descriptions of {shown(name)} differ")
    entry = ZipEntry(name, method, crc, packed, size, content)
    return entry, (start, content + packed), after


def _checked_name(raw: bytes) -> str:
    if not 1 <= len(raw) <= MAX_NAME_BYTES:
        raise refusal(
            Reason.ZIP_PATH, f"A name in the zip has {len(raw)} bytes; 1 to {MAX_NAME_BYTES} is allowed."
        )
    name = raw.decode("utf-8", errors="replace")
    if _PATH.search(name) or name in (".", "..") or "�" in name:
        raise refusal(
            Reason.ZIP_PATH,
            f"The zip holds {shown(name)}; it must hold plain files without folders. Zip the files "
            "themselves: zip -j prompt.zip FOLDER/adapter_config.json FOLDER/adapter_model.safetensors",
        )
    return name


def _check_kind(name: str, flags: int, method: int, made_by: int, attributes: int) -> None:
    if flags & _ENCRYPTED:
        raise refusal(Reason.ZIP_ENCRYPTED, f"{shown(name)} is encrypted; zip it without a password.")
    if method not in (_STORED, _DEFLATED) or flags & _PATCHED:
        raise refusal(
            Reason.ZIP_COMPRESSION,
            f"{shown(name)} is compressed by method {method}; use deflate or store it.",
        )
    mode = attributes >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise refusal(
            Reason.SYMLINK, f"{shown(name)} is a link or another special file; zip the file itself."
        )


def _check_contiguous(data: bytes, spans: list[tuple[int, int]], entries: list[ZipEntry], end: int) -> None:
    """Every byte before the directory belongs to exactly one entry (a data descriptor to the one before
    it)."""
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
    """Where an optional data descriptor of `entry` at `position` ends; `position` itself when there is
    none."""
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
        # One byte more than claimed is enough to catch a lie, and all that a lie ever costs.
        content = stream.decompress(packed, entry.size_bytes + 1)
    except zlib.error:
        _invalid(f"{shown(entry.name)} cannot be unpacked")
    if len(content) > entry.size_bytes:
        raise refusal(Reason.ZIP_BOMB, f"{shown(entry.name)} unpacks to more than the zip says.")
    if not stream.eof or stream.unused_data:
        _invalid(f"{shown(entry.name)} is cut off or has bytes after it")
    return content


def _invalid(problem: str) -> NoReturn:
    raise refusal(Reason.ZIP_INVALID, f"The zip is not plain and whole: {problem}. Make it again.")
