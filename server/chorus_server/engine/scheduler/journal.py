"""The admission journal. A request is accepted when its line is written, and each id ends in exactly one
outcome."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from chorus_server.errors import InternalError

logger = logging.getLogger(__name__)


class Journal:
    """JSON lines, `{"event": "accepted", "id", "tenant", "time"}` and `{"event": "outcome", "id", "outcome",
    "time"}`.

    Without a path the last `entries` lines stay in memory. With a path they are appended to the file,
    unbuffered and one write for each line, so they outlive a killed process. Thread-safe. `time` is in
    seconds since the epoch.
    """

    def __init__(
        self, path: Path | None = None, entries: int = 4096, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._lock = threading.Lock()
        self._ring: deque[dict[str, Any]] = deque(maxlen=entries)
        self._wall_clock = wall_clock
        self._file: IO[bytes] | None = None
        self._torn = False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)

    def accepted(self, request_id: str, tenant: str) -> None:
        """Write the line that makes the request accepted.

        Raises:
            InternalError: the line cannot be written, for example because the disk is full. The request is
                not accepted.
        """
        try:
            self._write({"event": "accepted", "id": request_id, "tenant": tenant, "time": self._wall_clock()})
        except OSError as error:
            raise InternalError(
                f"The admission journal cannot be written ({error.strerror}): free space on its disk.",
                code="journal_unwritable",
            ) from error

    def outcome(self, request_id: str, outcome: str) -> None:
        """Write how the request ended: `ok` or an error code. The answer is sent even if the disk is full."""
        try:
            self._write(
                {"event": "outcome", "id": request_id, "outcome": outcome, "time": self._wall_clock()}
            )
        except OSError as error:
            logger.warning(
                "the outcome of %s could not be written to the admission journal: %s",
                request_id,
                error.strerror,
            )

    def entries(self) -> list[dict[str, Any]]:
        """The lines in memory, oldest first."""
        with self._lock:
            return list(self._ring)

    def close(self) -> None:
        """Close the file; later lines go to memory only."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, entry: dict[str, Any]) -> None:
        with self._lock:
            if self._file is not None:
                self._append(self._file, json.dumps(entry).encode() + b"\n")
            self._ring.append(entry)

    def _append(self, file: IO[bytes], line: bytes) -> None:
        # Begin a new line after a torn one, so that only the torn line is unreadable.
        line = b"\n" + line if self._torn else line
        written = file.write(line)
        self._torn = 0 < written < len(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, "the line was cut short")
