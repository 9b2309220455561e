"""Rows of usage on their way to the database, in a file that outlives the process.

    FOLDER/REPLICA.jsonl      a row on each line; locked as long as its process lives

Rows are appended and forgotten in order. When all are in the database the file is emptied, so it is
short unless the database is away. Writing a row to the database twice does no harm, so nothing is kept of how
far that has come: whoever finds the file of a dead process begins at its beginning.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chorus_server.engine.work import Settled
from prompts_store.durable import sync_folder
from prompts_store.usage.records import USAGE_OUTCOMES, UsageRow

SPOOL_BYTES = 64 << 20
"""How much may wait for the database: about 250,000 rows."""

_READ_BYTES = 1 << 20
_NAME = re.compile(r"[0-9a-f]{16}")
# Of the fields of a line, in order: the largest number, or the longest text.
_INT, _LONG = 2**31 - 1, 2**63 - 1
_LIMITS = (_LONG, _LONG, 64, 32, 129, 64, 16, _INT, _INT, _LONG, 128, _INT)
_LONGEST_TEXT = 129
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def line_of(sequence: int, at_microseconds: int, settled: Settled) -> bytes:
    """A row as the spool keeps it."""
    origin = settled.origin
    fields = (
        sequence,
        at_microseconds,
        origin.tenant,
        origin.key,
        origin.task,
        origin.digest,
        settled.outcome,
        settled.tokens_in,
        settled.tokens_out,
        settled.work_units,
        origin.call,
        origin.item,
    )
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def row_of(line: bytes) -> UsageRow | None:
    """The row on a line; None if the line was cut off or damaged."""
    try:
        fields: Any = json.loads(line)
        if not isinstance(fields, list) or len(fields) != len(_LIMITS) or fields[6] not in USAGE_OUTCOMES:
            return None
        for field, limit in zip(fields, _LIMITS, strict=True):
            kind, size = (int, field) if limit > _LONGEST_TEXT else (str, len(field))
            if type(field) is not kind or not 0 <= size <= limit:
                return None
        return UsageRow(fields[0], _EPOCH + timedelta(microseconds=fields[1]), *fields[2:])
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


class SpoolFile:
    """One replica's rows that are not in the database yet. May be used from several threads.

    Attributes:
        replica: the file's name.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.replica = path.stem
        self._path = path
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._size = os.fstat(descriptor).st_size
        self._sent = 0

    @classmethod
    def create(cls, folder: Path, replica: str) -> SpoolFile:
        """The file of a replica that has none yet. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{replica}.jsonl"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        with suppress(OSError):  # some network disks have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync_folder(folder)
        return cls(path, descriptor)

    @classmethod
    def left_behind(cls, folder: Path) -> Iterator[SpoolFile]:
        """The files of processes that are no more. Raises OSError."""
        for path in sorted(folder.glob("*.jsonl")):
            if _NAME.fullmatch(path.stem) is None:
                continue
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except FileNotFoundError:  # another process wrote its rows just now
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # its process lives, or may live: this disk has no locks
                os.close(descriptor)
                continue
            yield cls(path, descriptor)

    @property
    def waiting_bytes(self) -> int:
        """How much is not in the database yet."""
        return self._size - self._sent

    @property
    def size_bytes(self) -> int:
        """How much is on the disk."""
        return self._size

    def append(self, content: bytes) -> None:
        """Add whole lines, and wait until they are on the disk. Raises OSError after adding nothing."""
        with self._lock:
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
                raise
            self._size += len(content)

    def read(self) -> tuple[list[bytes], int]:
        """The next lines, about a megabyte, and what to tell `forget` once they are in the database.

        Raises OSError.
        """
        with self._lock:
            if self._sent == self._size:
                return [], 0
            content = os.pread(self._descriptor, min(_READ_BYTES, self._size - self._sent), self._sent)
        whole = content.rfind(b"\n") + 1
        if not whole:  # the last line of a process that was killed while it wrote, or no line at all
            return [content], len(content)
        return content[:whole].splitlines(), whole

    def forget(self, count: int) -> None:
        """The next `count` bytes are in the database. Raises OSError."""
        with self._lock:
            self._sent += count
            if self._sent >= self._size:
                os.ftruncate(self._descriptor, 0)
                self._sent = self._size = 0

    def close(self) -> None:
        """Close the file, and remove it if nothing is left in it. Best effort: an empty file does no harm."""
        with self._lock, suppress(OSError):
            if self._sent >= self._size:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)


def new_replica() -> str:
    """A fresh name for whoever counts rows."""
    return secrets.token_hex(8)
