"""Long texts of a JSON body, kept as UTF-8.

A Python string takes as many bytes for each of its characters as the widest one needs: one emoji makes a text
of ASCII four times as large. So before the body is parsed, each long text that may be so is decoded in pieces
and set aside, and a short mark stands in its place.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from io import BytesIO
from typing import Any

from pydantic_core import from_json

from chorus_server.api.http.json_counts import end_of_text

LONGEST = 1024
"""Characters of a text that is no input; no field takes more."""

_MARK = secrets.token_hex(8)  # so that nobody can send it
_LONG = 32  # bytes of a text with its quotes, and room for a mark with its number
_WINDOW = 1 << 12
_AT_ONCE = 1 << 11  # bytes that are decoded at once
# A piece ends between two characters, and never between the two halves of one that is escaped.
_PIECE = re.compile(
    rb'(?:[^"\\\x80-\xff]{1,64}+|(?:[\xc2-\xf4][\x80-\xbf]{1,3}+){1,16}+'
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|\\u[0-9a-fA-F]{4}|\\[^u]){1,32}+",
    re.DOTALL,
)


class LongTexts:
    """The long texts of a body that are not plain ASCII, until they are put back.

    Args:
        body: in it, a mark of the same length takes the place of each, so that the parser's errors name the
            same places. What is not JSON stays as it is.
        most: texts that it may have and be JSON; more are not looked at.
    """

    def __init__(self, body: bytearray, most: int) -> None:
        self._texts: list[bytes] = []
        if not _may_be_wide(body):
            return
        end = 0
        for _ in range(most):
            begin = body.find(b'"', end)
            if begin < 0 or not (end := _end(body, begin + 1)):
                return
            if end - begin >= _LONG and (text := _utf8(body, begin + 1, end - 1)) is not None:
                mark = b'"%s%d"' % (_MARK.encode(), len(self._texts))
                body[begin : begin + len(mark)] = mark
                _blank(body, begin + len(mark), end)
                self._texts.append(text)

    def put_back(self, value: Any, kept: Collection[str]) -> Any:
        """What was parsed, with the texts in their places; a list or object is changed and not copied.

        Args:
            kept: names of the fields in which a long text stays UTF-8, as bytes. In others it becomes a
                string and is cut after `LONGEST` + 1 characters.
        """
        return self._whole(value, kept, False) if self._texts else value

    def _whole(self, value: Any, kept: Collection[str], keep: bool) -> Any:
        if type(value) is str:
            if not value.startswith(_MARK):
                return value
            text = self._texts[int(value[len(_MARK) :])]
            return text if keep else _start(text)
        if type(value) is list:
            for place, item in enumerate(value):
                value[place] = self._whole(item, kept, keep)
        elif type(value) is dict:
            for name, item in value.items():
                value[name] = self._whole(item, kept, keep or name in kept)
            if any(name.startswith(_MARK) for name in value):
                return {self._whole(name, kept, False): item for name, item in value.items()}
        return value


def _end(body: bytearray, at: int) -> int:
    """As `end_of_text`, at once where nothing is escaped."""
    end = body.find(b'"', at)
    return end + 1 if end < 0 or body.find(b"\\", at, end) < 0 else end_of_text(body, at)


def _may_be_wide(text: bytearray) -> bool:
    return not text.isascii() or b"\\u" in text


def _blank(body: bytearray, begin: int, end: int) -> None:
    for at in range(begin, end, _WINDOW):
        stop = min(at + _WINDOW, end)
        body[at:stop] = b" " * (stop - at)


def _start(text: bytes) -> str:
    """The text, cut; but never so that a NUL character, which is refused, goes unseen."""
    if b"\0" in text:
        return "\0"
    return text[: 4 * (LONGEST + 1)].decode("utf-8", "ignore")[: LONGEST + 1]


def _utf8(body: bytearray, begin: int, end: int) -> bytes | None:
    """What the text between two quotes says; None where it is ASCII without escapes, or no JSON."""
    if not any(_may_be_wide(body[at : min(at + _WINDOW + 1, end)]) for at in range(begin, end, _WINDOW)):
        return None
    try:
        if end - begin <= _AT_ONCE:
            return _decoded(body[begin:end])
        text = BytesIO()  # its value is no copy
        while begin < end:
            piece = _PIECE.match(body, begin, end)
            if piece is None:
                return None
            text.write(_decoded(piece[0]))
            begin = piece.end()
    except ValueError:
        return None
    return text.getvalue()


def _decoded(piece: bytes | bytearray) -> bytes:
    text: str = from_json(b'"%b"' % bytes(piece), cache_strings=False)
    return text.encode()
