"""Usage: a record of each item whose outcome is known, on its way to the database off the request's way.

    record --- each second ---> spool --- each second ---> database

A record is appended to a queue in memory. One thread writes the queue to the spool once a second; another
writes the spool to the database. So `kill -9` loses what was recorded in the last second, whatever the
database does, and an orderly end loses nothing.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from chorus_server.engine.work import Settled
from chorus_server.tenancy.metrics import UsageMetrics
from chorus_server.tenancy.usage_spool import SPOOL_BYTES, SpoolFile, line_of, new_replica, row_of
from prompts_store.errors import StoreError
from prompts_store.store import PromptStore
from prompts_store.usage.records import UsageRow

LOG = logging.getLogger("chorus.usage")

SAVE_SECONDS = 1.0
"""From one write to the spool to the next, and so the most that is lost by `kill -9`."""
PATIENCE_SECONDS = 2.0
"""How long a write waits for other writers; then it is tried again a second later."""

CLOSE_SECONDS = 1.5
"""How long an orderly end waits for the database; what it did not take by then, the next start writes."""

_MOST_TAKEN = 250_000


class UsageRecorder:
    """Takes records and brings them to the database. `record` may be called from any thread.

    Args:
        write: stores the rows of a replica, each once: `PromptStore.record_usage`.
        folder: of the spool. While the database is away, rows wait there up to `limit_bytes`; after that the
            oldest are kept, and the newest counted as lost.
        clock: nanoseconds since 1970.
    """

    def __init__(
        self,
        write: Callable[[str, Sequence[UsageRow]], object],
        folder: Path,
        metrics: UsageMetrics,
        *,
        limit_bytes: int = SPOOL_BYTES,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.replica = new_replica()
        self._write = write
        self._folder = folder
        self._metrics = metrics
        self._limit = limit_bytes
        self._clock = clock
        self._taken: deque[tuple[int, Settled]] = deque()
        self._numbers = itertools.count(1)
        self._saving = threading.Lock()
        self._sending = threading.Lock()
        self._own: SpoolFile | None = None
        self._left_behind: list[SpoolFile] = []
        # Lines that the disk did not take.
        self._held: deque[bytes] = deque()
        self._losing = self._failing = self._saved_all = False
        self._stopping = threading.Event()
        self._more = threading.Event()
        self._threads = [
            threading.Thread(target=self._save_for_ever, name="chorus-usage-spool", daemon=True),
            threading.Thread(target=self._send_for_ever, name="chorus-usage-write", daemon=True),
        ]
        metrics.spool_bytes.watch(lambda: self.waiting_bytes)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of rows that are saved, or should be, and not in the database yet."""
        files = sum(file.waiting_bytes for file in self._files())
        return files + sum(map(len, list(self._held)))

    def record(self, settled: Settled) -> None:
        """Take what came of one item. Never waits and never raises."""
        if len(self._taken) < _MOST_TAKEN:
            self._taken.append((self._clock(), settled))
        else:
            self._metrics.rows_lost.inc(1, "full")

    def start(self) -> None:
        """Begin to write, first what processes before this one left behind."""
        try:
            self._left_behind = list(SpoolFile.left_behind(self._folder))
        except OSError as error:
            LOG.warning("usage that was left in %s cannot be read: %s", self._folder, error)
        for thread in self._threads:
            thread.start()
        self._more.set()

    def save(self) -> None:
        """Write what was recorded to the spool, and wait until it is on the disk."""
        with self._saving:
            taken = [self._taken.popleft() for _ in range(len(self._taken))]
            if not taken and not self._held:
                return
            lines = [line_of(next(self._numbers), at // 1000, settled) for at, settled in taken]
            lines = self._within_bounds([*self._held, *lines])
            try:
                if self._own is None:
                    self._own = SpoolFile.create(self._folder, self.replica)
                self._own.append(b"".join(lines))
            except OSError as error:
                if not self._held:
                    LOG.error("usage cannot be saved in %s, and waits in memory: %s", self._folder, error)
                self._held = deque(lines)
            else:
                self._held.clear()

    def send(self) -> None:
        """Write what waits to the database.

        Raises:
            StoreError: it took no more; the rest goes on waiting.
            OSError: the spool could not be read.
        """
        with self._sending:
            while self._left_behind:
                self._send_file(self._left_behind[0])
                self._left_behind.pop(0).close()
            if held := list(self._held):
                # They may be saved meanwhile, and are then sent again.
                self._send_lines(self.replica, held)
                with self._saving:
                    if self._held and self._held[0] is held[0]:
                        self._held = deque(list(self._held)[len(held) :])
            if self._own is not None:
                self._send_file(self._own)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Save everything; then write it to the database, if that takes at most `seconds`. The rest is
        written at the next start."""
        self._stopping.set()
        saver, sender = self._threads
        if saver.ident is not None:
            saver.join()
        self.save()
        self._saved_all = True
        self._more.set()
        if sender.ident is not None:
            sender.join(seconds)
            if sender.is_alive():
                return
        for file in self._files():
            file.close()

    def _files(self) -> list[SpoolFile]:
        return [*self._left_behind, *([] if self._own is None else [self._own])]

    def _within_bounds(self, lines: list[bytes]) -> list[bytes]:
        """The lines for which there is room. The newest have none first."""
        waiting = sum(file.waiting_bytes for file in self._files())
        on_disk = sum(file.size_bytes for file in self._files())
        room = min(self._limit - waiting, 2 * self._limit - on_disk)
        fitting = 0
        for line in lines:
            room -= len(line)
            if room < 0:
                break
            fitting += 1
        lost = len(lines) - fitting
        if lost:
            self._metrics.rows_lost.inc(lost, "full")
        if lost and not self._losing:
            LOG.error(
                "usage is lost: %d bytes of it wait for the database, and that is the limit; see "
                "chorus_usage_rows_lost_total",
                self._limit,
            )
        self._losing = bool(lost)
        return lines[:fitting]

    def _send_file(self, file: SpoolFile) -> None:
        while True:
            lines, count = file.read()
            if not lines:
                return
            self._send_lines(file.replica, lines)
            file.forget(count)

    def _send_lines(self, replica: str, lines: Sequence[bytes]) -> None:
        rows = [row_of(line) for line in lines]
        whole = [row for row in rows if row is not None]
        self._write(replica, whole)
        self._metrics.rows_written.inc(len(whole))
        if len(whole) < len(rows):
            LOG.warning("%d rows of usage were cut off or damaged in the spool", len(rows) - len(whole))
            self._metrics.rows_lost.inc(len(rows) - len(whole), "unreadable")

    def _save_for_ever(self) -> None:
        while not self._stopping.wait(SAVE_SECONDS):
            try:
                self.save()
            except Exception:  # counting must go on, whatever it was
                LOG.exception("usage could not be saved")
            self._more.set()

    def _send_for_ever(self) -> None:
        """Once each second, when the other thread has saved; once more at the end."""
        while True:
            self._more.wait()
            self._more.clear()
            last = self._saved_all
            try:
                self.send()
                self._failing = False
            except Exception as error:
                if not self._failing:
                    known = isinstance(error, StoreError | OSError)
                    message = "usage waits in %s until the database takes it: %s"
                    LOG.warning(message, self._folder, error, exc_info=None if known else error)
                self._failing = True
            if last:
                return


def recorder_of(store: PromptStore, data_dir: Path, metrics: UsageMetrics) -> UsageRecorder:
    """The recorder of a serving process, whose spool is in the data folder."""
    write = partial(store.record_usage, patience_seconds=PATIENCE_SECONDS)
    return UsageRecorder(write, data_dir / "usage", metrics)
