"""Log lines as JSON: one object a line, always with the same keys first, and a line of an ended request with
more. Nothing that a client sends as content is ever among them."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

FIELDS = ("request_id", "tenant", "task", "version", "trace_id", "method", "route", "status", "seconds")
"""Keys that a line has besides its own if the code that logs gives them as `extra`."""

MAX_CHARACTERS = 16_384
"""Longest message. What is beyond is cut off, before the object is written."""


def json_line(level: str, logger: str, message: str, at: float | None = None, **more: Any) -> str:
    """One object: `time` (RFC 3339, UTC), `level`, `logger`, `message`, then `more`.

    Args:
        level: in lower case.
        at: seconds since 1970; now if None.
    """
    seconds = time.time() if at is None else at
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    written = f"{whole}.{int(seconds % 1 * 1000):03d}Z"
    return json.dumps(
        {"time": written, "level": level, "logger": logger, "message": message[:MAX_CHARACTERS], **more}
    )


class Formatter(logging.Formatter):
    """Tracebacks of what a client asked for are without the words of errors that repeat a value, which may be
    a text: the place tells what went wrong there."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        if record.exc_info:
            record.exc_text = traceback_of(record, self.formatException(record.exc_info))
        return super().format(record)


def traceback_of(record: logging.LogRecord, text: str) -> str:
    """The traceback of a record, from the one with all words."""
    if record.exc_info and (hasattr(record, "request_id") or hasattr(record, "tenant")):
        for error in _chain(record.exc_info[1]):
            if isinstance(error, ValueError | LookupError) and (said := str(error)):
                text = text.replace(f": {said}", "")
    return text


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and all that it came from."""
    found: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if one is not None and not any(one is each for each in found):
            found.append(one)
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return found


class JsonFormatter(logging.Formatter):
    """Records as such lines; a traceback is under `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        more = {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            more["exception"] = traceback_of(record, self.formatException(record.exc_info))[-MAX_CHARACTERS:]
        return json_line(record.levelname.lower(), record.name, record.getMessage(), record.created, **more)
