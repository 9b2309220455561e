"""The log of a process: lines to standard error, written by a thread of its own.

Whoever has something to say never waits for the reader of the log and never fails because of it. A reader
that is gone, one that stalls, a full disk: each costs lines, which are counted and told once lines go out
again. What other code prints takes the same way.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import select
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

Say = Callable[[str], None]
"""Told one line at a time how a command goes."""

FLUSH_SECONDS = 0.5
"""How long the end of a process waits for its last lines to be read."""

_MAX_LINES = 4096
_AT_ONCE = 256
_PAUSE_SECONDS = 0.01
"""Between two writes: under load each takes many lines, and a line costs its thread no turn of its own."""

_MAX_CHARACTERS = 16_384
_TALLY_SECONDS = 1.0
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_STDOUT, _STDERR = 1, 2


class Log:
    """Lines on their way to a descriptor, at most `_MAX_LINES`; what comes beyond is dropped and counted.

    Args:
        name: what a line that is said begins with.
    """

    def __init__(self, descriptor: int, name: str = "chorus") -> None:
        self._descriptor = descriptor
        self._name = name
        self._started = time.monotonic()
        # Its `put` may interrupt itself, so a signal's handler may write.
        self._queue: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._dropped = 0
        self._unwritten = 0
        self._told = 0
        threading.Thread(target=self._run, name="chorus-log", daemon=True).start()

    @property
    def lost(self) -> int:
        """Lines that were never written."""
        return self._dropped + self._unwritten

    def write(self, line: str) -> None:
        """Write a line, soon. Callable from any thread and from a signal's handler."""
        if self._queue.qsize() >= _MAX_LINES:
            self._dropped += 1
        else:
            self._queue.put(line[:_MAX_CHARACTERS])

    def say(self, line: str) -> None:
        """Write a line with the seconds since the log was made."""
        self.write(f"{self._name} [{time.monotonic() - self._started:7.1f} s] {line}")

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until what was written before is out. False when that takes longer."""
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(seconds)

    def _run(self) -> None:
        while True:
            lines, reached = self._next()
            lost = self.lost - self._told
            if lines and lost and not self._out([f"chorus: {lost} lines of the log were lost here"]):
                self._told += lost
            self._unwritten += self._out(lines)
            if reached is not None:
                reached.set()
            elif lines:
                time.sleep(_PAUSE_SECONDS)

    def _next(self) -> tuple[list[str], threading.Event | None]:
        """The lines at hand, at least one, or who waits behind them."""
        lines: list[str] = []
        item = self._queue.get()
        while not isinstance(item, threading.Event):
            lines.append(item)
            if len(lines) == _AT_ONCE or self._queue.empty():  # nobody else takes from it
                return lines, None
            item = self._queue.get()
        return lines, item

    def _out(self, lines: list[str]) -> int:
        """Write lines; how many were not wholly taken."""
        rest = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [])
        except OSError:
            return rest.count(b"\n")
        return 0


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.write(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """At the end of the process: `logging.shutdown` calls it."""
        self._log.flush()


class _Printed(io.TextIOBase):
    """In place of `sys.stdout` and `sys.stderr`."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, log: Log, descriptor: int) -> None:
        self._log = log
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._rest = ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            if len(self._rest) > _MAX_CHARACTERS:
                lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            self._log.write(line)
        return len(text)

    def flush(self) -> None:
        """Nothing: a line is on its way when it is whole, and nobody here waits for a reader."""


@contextlib.contextmanager
def process_log(name: str, level: str) -> Iterator[Log]:
    """The log of this process, until the block ends: what is said, logged and printed.

    Args:
        name: what each line that is said begins with.
        level: least severe level of our own log lines.
    """
    _open_standard_descriptors()
    with _never_blocking(_STDERR), contextlib.ExitStack() as stack:
        log = Log(_STDERR, name)
        stack.callback(log.flush)
        handler = _Handler(log)
        handler.setFormatter(logging.Formatter(_FORMAT))
        root = logging.getLogger()
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        stack.enter_context(contextlib.redirect_stdout(_Printed(log, _STDOUT)))
        stack.enter_context(contextlib.redirect_stderr(_Printed(log, _STDERR)))
        set_log_levels(level)
        yield log


def _open_standard_descriptors() -> None:
    """Where one is closed the next file or socket would get its number, and the log's lines with it."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(opened)


@contextlib.contextmanager
def _never_blocking(descriptor: int) -> Iterator[None]:
    """A pipe behind this descriptor is opened anew, so that native code, which writes there itself, loses its
    lines too where it would wait. Other processes keep the pipe as it is."""
    before = None
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            mine = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            before = os.dup(descriptor)
            os.dup2(mine, descriptor)
            os.close(mine)
    except OSError:  # no such place, or no reader: then nothing blocks
        pass
    try:
        yield
    finally:
        if before is not None:
            os.dup2(before, descriptor)
            os.close(before)


def set_log_levels(level: str) -> None:
    """Our own logs from `level` up; those of libraries only from `warning` up, unless it is `debug`."""
    own = logging.getLevelName(level.upper())
    logging.getLogger().setLevel(own if own == logging.DEBUG else max(own, logging.WARNING))
    for name in ("chorus", "server", "prompts_store", "uvicorn"):
        logging.getLogger(name).setLevel(own)


class Tally:
    """Counts what may happen a thousand times a second; a line a second tells it, however much it is.

    Args:
        begin: of the line.
    """

    def __init__(self, logger: logging.Logger, level: int, begin: str) -> None:
        self._logger, self._level, self._begin = logger, level, begin
        self._counts: Counter[str] = Counter()
        self._last = ""
        self._written = float("-inf")

    def note(self, what: str, last: str = "") -> None:
        """One more of these.

        Args:
            last: something to find the latest by, such as its request id.
        """
        self._counts[what] += 1
        self._last = last or self._last

    def write(self, now: float) -> bool:
        """Log what was noted, unless a line was written less than a second ago.

        Args:
            now: monotonic seconds.

        Returns:
            Whether all is told.
        """
        if not self._counts or now - self._written < _TALLY_SECONDS:
            return not self._counts
        counts = ", ".join(f"{count} x {what}" for what, count in self._counts.most_common())
        last = f" (last id={self._last})" if self._last else ""
        self._logger.log(self._level, "%s: %s%s", self._begin, counts, last)
        self._counts.clear()
        self._last, self._written = "", now
        return True
