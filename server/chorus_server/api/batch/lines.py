"""The lines of a batch's file: read one by one, checked all before any is asked."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Response

from chorus_server.api.door.routing import BodyType
from chorus_server.api.http.json_counts import span_of
from chorus_server.api.inference.calls import Call
from chorus_server.api.schemas.documents.batch import MOST_LINES, BatchEndpoint
from chorus_server.errors import ChorusError, InvalidInputError, TooLargeError
from chorus_server.settings import Settings
from chorus_server.validation import join_path
from prompts_store.errors import StoreError

MOST_FAULTS = 20
"""Faults of a file that are told."""

_MARK = b"\xef\xbb\xbf"
_LINES_A_LOOK = 1_000
_MOST_ID_CHARACTERS = 512
_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What the lines of a batch are for.

    Attributes:
        body: of the route.
        answer: the route's answer, without HTTP.
        error_answer: to what went wrong, in the route's shape; takes the error and the request's id.
    """

    body: BodyType
    answer: Callable[[Call, Any], Awaitable[Response]]
    error_answer: Callable[[ChorusError | StoreError, str], Response]


@dataclass(frozen=True, slots=True)
class BatchFile:
    """The file of a batch.

    Attributes:
        url: of every line.
    """

    path: Path
    url: BatchEndpoint
    endpoint: Endpoint
    settings: Settings

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line that is not blank, and its number from 1; of a line that is too long, the beginning."""
        most = self.settings.max_body_bytes + 2
        with self.path.open("rb") as file:
            number, ended = 0, True
            for piece in iter(partial(file.readline, most), b""):
                number += ended
                begins, ended = ended, piece.endswith(b"\n")
                line = piece.removeprefix(_MARK) if number == 1 else piece
                if begins and line.strip():
                    yield number, line

    def envelope(self, line: bytes) -> tuple[str, dict[str, Any] | ChorusError]:
        """The id of a line and its body, parsed but not validated; or what a request with so large a body is
        refused with.

        Raises:
            InvalidInputError: it is not a line for this batch; names the field.
            TooLargeError: what stands beside its body is too large.
        """
        if len(line) > self.settings.max_body_bytes + 1:
            raise InvalidInputError(
                f"The line is longer than {self.settings.max_body_bytes} bytes, the most that a request has."
            )
        value, refusal = self._parsed(line)
        if not isinstance(value, dict):
            raise InvalidInputError("A line is an object of custom_id, method, url and body.")
        custom_id, method, url, body = (value.get(name) for name in _FIELDS)
        for name in value:
            if name not in _FIELDS:
                field = join_path("", name)
                raise InvalidInputError("There is no such field: remove it.", field=field)
        if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _MOST_ID_CHARACTERS:
            raise InvalidInputError(
                f"Send a text of 1 to {_MOST_ID_CHARACTERS} characters, by which you know the answer.",
                field="custom_id",
            )
        if method != "POST":
            raise InvalidInputError("It must be 'POST'.", field="method")
        if url != self.url:
            raise InvalidInputError(f"It must be {self.url!r}, as the batch's endpoint is.", field="url")
        if not isinstance(body, dict):
            raise InvalidInputError("Send an object, the body of the request.", field="body")
        return custom_id, refusal or body

    def _parsed(self, line: bytes) -> tuple[Any, ChorusError | None]:
        """A line, and why its body is refused, if that has too much of something; in the line then stands an
        empty one."""

        def parsed(text: bytes) -> Any:
            return self.endpoint.body.parsed(self.settings, bytearray(text))

        try:
            return parsed(line), None
        except (InvalidInputError, TooLargeError) as error:
            whole = error
        if (span := span_of(line, "body")) is None:
            raise whole
        begin, end = span
        value = parsed(line[:begin] + b"{}" + line[end:])
        try:
            return {**value, "body": parsed(line[begin:end])}, None  # alone it is not nested as deeply
        except (InvalidInputError, TooLargeError) as refusal:
            if refusal.code == "invalid_json":
                raise whole from None
            return value, refusal.with_traceback(None)  # which would keep the line

    def check(self, interrupt: Callable[[], None]) -> tuple[int, list[dict[str, Any]]]:
        """How many lines there are, and the first faults: `line`, `code`, `message` and `param` of each.

        Args:
            interrupt: called now and then; what it raises ends the work.
        """
        hashes, faults, count = array("q"), list[dict[str, Any]](), 0
        for number, line in self.lines():
            if count % _LINES_A_LOOK == 0:
                interrupt()
            count += 1
            if count > MOST_LINES:
                faults.append(_fault(number, f"There are more than {MOST_LINES} lines: send several files."))
                break
            try:
                hashes.append(hash(self.envelope(line)[0]))
            except (InvalidInputError, TooLargeError) as error:
                faults.append(_fault(number, error.message, error.field, error.code))
                if len(faults) == MOST_FAULTS:
                    break
        if not count:
            faults.append(_fault(1, "The file has no lines: send one for each request."))
        return count, faults or self._doubled(np.sort(np.frombuffer(hashes, np.int64)))

    def _doubled(self, hashes: np.ndarray[Any, np.dtype[np.int64]]) -> list[dict[str, Any]]:
        """Faults of the ids that come twice, by the hashes of all of them, sorted: so only those that may be
        doubled are ever in memory together."""
        suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        seen: dict[str, int] = {}
        faults: list[dict[str, Any]] = []
        for number, line in self.lines() if suspects else ():
            custom_id, _ = self.envelope(line)
            if hash(custom_id) not in suspects:
                continue
            first = seen.setdefault(custom_id, number)
            if first != number:
                faults.append(_fault(number, f"Line {first} has the same custom_id.", "custom_id"))
            if len(faults) == MOST_FAULTS:
                break
        return faults


def check_alone(body: Any) -> None:
    """Refuse what means nothing in a file."""
    if getattr(body, "stream", None):
        raise InvalidInputError("The answers of a batch are a file: leave stream out.", field="stream")
    if getattr(body, "deadline_seconds", None) is not None:
        message = "Lines of a batch have no deadline: leave it out."
        raise InvalidInputError(message, field="deadline_seconds")


def _fault(
    line: int, message: str, param: str | None = None, code: str = InvalidInputError.default_code
) -> dict[str, Any]:
    return {"line": line, "code": code, "message": message, "param": param}
