"""The log of a process: lines to standard error, written by a thread of its own.

Code that logs never waits for whoever reads the log, and never fails because of it. If the reader is gone or
stalls, or the disk is full, lines are lost; they are counted, and the log says how many once it can be
written again. What other code prints goes the same way. Lines are text for people or JSON for programs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from chorus_server.log_lines import MAX_CHARACTERS, Formatter, JsonFormatter, json_line
from chorus_server.outbox import Outbox

Say = Callable[[str], None]
"""Called with one line at a time to report a command's progress."""

FLUSH_SECONDS = 0.5
"""How long an ending process waits for its last lines to be read."""

_MAX_LINES = 4096
_AT_ONCE = 256
_PAUSE_SECONDS = 0.01
"""Time between two writes. Under load each write takes many lines, which costs less than waking the thread
for each line."""

_TALLY_SECONDS = 1.0
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_LOST = "chorus: {} lines of the log were lost here"
_STDOUT, _STDERR = 1, 2
_PRINTED = {_STDOUT: "stdout", _STDERR: "stderr"}


class Log:
    """Lines on their way to a file descriptor, at most `_MAX_LINES`. Further lines are dropped and counted.

    Args:
        name: the first word of each line written with `say`.
        as_json: whether each line is a JSON object.
    """

    def __init__(self, descriptor: int, name: str = "chorus", as_json: bool = False) -> None:
        self._descriptor = descriptor
        self._name = name
        self._as_json = as_json
        self._started = time.monotonic()
        self._outbox = Outbox[str](_MAX_LINES, _AT_ONCE)
        self._dropped = 0
        self._unwritten = 0
        self._told = 0
        threading.Thread(target=self._run, name="chorus-log", daemon=True).start()

    @property
    def lost(self) -> int:
        """How many lines were never written."""
        return self._dropped + self._unwritten

    def write(self, line: str, level: str = "info", logger: str = "") -> None:
        """Write a line soon. May be called from any thread and from a signal handler.

        Args:
            level, logger: what a JSON object says of it.
        """
        self.put(self._written(line, level, logger or self._name))

    def say(self, line: str) -> None:
        """Write a line that, as text, begins with the seconds since the log was opened."""
        begin = "" if self._as_json else f"{self._name} [{time.monotonic() - self._started:7.1f} s] "
        self.write(begin + line)

    def put(self, written: str) -> None:
        """`write` for a line in its last form."""
        if not self._outbox.put(written):
            self._dropped += 1

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until everything written before is out. False if that takes longer than `seconds`."""
        return self._outbox.flush(seconds)

    def _written(self, line: str, level: str, logger: str) -> str:
        return json_line(level, logger, line) if self._as_json else line[:MAX_CHARACTERS]

    def _run(self) -> None:
        while True:
            lines, reached = self._outbox.take()
            lost = self.lost - self._told
            if lines and lost and not self._out([self._written(_LOST.format(lost), "warning", self._name)]):
                self._told += lost
            self._unwritten += self._out(lines)
            if reached is not None:
                reached.set()
            elif lines:
                time.sleep(_PAUSE_SECONDS)

    def _out(self, lines: list[str]) -> int:
        """Write lines. Returns how many were not written whole."""
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


class _TextFormatter(Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record)[:MAX_CHARACTERS]


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.put(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """`logging.shutdown` calls this at the end of the process."""
        self._log.flush()


class _Printed(io.TextIOBase):
    """Stands in for `sys.stdout` and `sys.stderr`."""

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
            if len(self._rest) > MAX_CHARACTERS:
                lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            self._log.write(line, logger=_PRINTED[self._descriptor])
        return len(text)

    def flush(self) -> None:
        """Does nothing: every complete line is already on its way, and nobody here waits for a reader."""


@contextlib.contextmanager
def process_log(name: str, level: str, as_json: bool = False) -> Iterator[Log]:
    """The log of this process until the block ends. It takes what is said, logged, printed and warned of.

    Args:
        name: the first word of each line written with `say`.
        level: our own log lines below this level are not written.
        as_json: whether each line is a JSON object. What native code writes stays as it is.
    """
    _open_standard_descriptors()
    with _never_blocking(_STDERR), contextlib.ExitStack() as stack:
        log = Log(_STDERR, name, as_json)
        stack.callback(log.flush)
        handler = _Handler(log)
        handler.setFormatter(JsonFormatter() if as_json else _TextFormatter(_FORMAT))
        root = logging.getLogger()
        root.addHandler(handler)
        stack.callback(root.removeHandler, handler)
        stack.enter_context(contextlib.redirect_stdout(_Printed(log, _STDOUT)))
        stack.enter_context(contextlib.redirect_stderr(_Printed(log, _STDERR)))
        stack.enter_context(log_levels(level))
        if as_json:  # a warning is printed in two lines
            logging.captureWarnings(True)
            stack.callback(logging.captureWarnings, False)
        yield log


def _open_standard_descriptors() -> None:
    """If a standard descriptor is closed, the next file or socket would get its number, and with it the log's
    lines."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(opened)


@contextlib.contextmanager
def _never_blocking(descriptor: int) -> Iterator[None]:
    """Open the pipe behind this descriptor again, in non-blocking mode. Native code, which writes to it
    directly, then loses its lines too instead of waiting. Other processes' ends of the pipe do not change."""
    before = None
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            mine = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            before = os.dup(descriptor)
            os.dup2(mine, descriptor)
            os.close(mine)
    except OSError:  # there is no pipe or no reader: then nothing blocks
        pass
    try:
        yield
    finally:
        if before is not None:
            os.dup2(before, descriptor)
            os.close(before)


@contextlib.contextmanager
def log_levels(level: str) -> Iterator[None]:
    """Until the block ends, show our own logs from `level` up, and those of libraries from `warning` up, or
    all if `level` is `debug`."""
    own = logging.getLevelName(level.upper())
    loggers = [
        logging.getLogger(name) for name in ("", "chorus", "chorus_server", "prompts_store", "uvicorn")
    ]
    before = [logger.level for logger in loggers]
    try:
        loggers[0].setLevel(own if own == logging.DEBUG else max(own, logging.WARNING))
        for logger in loggers[1:]:
            logger.setLevel(own)
        yield
    finally:
        for logger, each in zip(loggers, before, strict=True):
            logger.setLevel(each)


class Tally:
    """Counts events that may happen a thousand times a second, and logs one line a second about them.

    Args:
        begin: how the line begins.
    """

    def __init__(self, logger: logging.Logger, level: int, begin: str) -> None:
        self._logger, self._level, self._begin = logger, level, begin
        self._counts: Counter[str] = Counter()
        self._last = ""
        self._written = float("-inf")

    def note(self, what: str, last: str = "", count: int = 1) -> None:
        """Count more events of this kind.

        Args:
            last: identifies the latest event, such as its request id.
        """
        self._counts[what] += count
        self._last = last or self._last

    def write(self, now: float) -> bool:
        """Log the counts, unless a line was written less than a second ago.

        Args:
            now: monotonic seconds.

        Returns:
            Whether nothing is left to log.
        """
        if not self._counts or now - self._written < _TALLY_SECONDS:
            return not self._counts
        counts = ", ".join(f"{count} x {what}" for what, count in self._counts.most_common())
        last = f" (last id={self._last})" if self._last else ""
        extra = {"request_id": self._last or None}
        self._logger.log(self._level, "%s: %s%s", self._begin, counts, last, extra=extra)
        self._counts.clear()
        self._last, self._written = "", now
        return True
