"""Counts the values of a JSON text in its bytes, before any of them becomes an object.

A body of a megabyte may have a million values, and each becomes an object of many times its bytes. This
module looks only at brackets and commas outside texts, and stops at the limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from chorus_server.errors import InvalidInputError, TooLargeError

MAX_DEPTH = 16

_OTHERS = 64  # template fields; no other object of a body has more
_VALUES_AN_ITEM = 128  # in one item of `requests`: its settings and `_OTHERS` template fields
_LEAST_ITEMS = 1024

# Possessive quantifiers: otherwise the engine would keep every character of a text for backtracking. A match
# takes a few milliseconds at most, because other threads wait for it.
_STEP = re.compile(
    rb"""(?:[^"\[\]{},]{1,65536}+|"(?:[^"\\]{1,256}+|\\.){0,2048}+"){0,8}+(?:([\[\]{},])|(")|)""", re.DOTALL
)
_INSIDE = re.compile(rb'(?:[^"\\]{1,256}+|\\.){0,2048}+', re.DOTALL)
_BEYOND = re.compile(rb"[\xf0-\xf4]|\\u[dD][89abAB]")
_WINDOW = 1 << 16
_LATER_BYTES = bytes(range(0x80, 0xC0))  # continuation bytes of UTF-8 characters
_KEY = re.compile(rb'[ \t\r\n]*+"([A-Za-z0-9_\-]{1,64})"')
_OBJECT = b"{"[0]
_COMMA = b","[0]
_ENDS = b"}]"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items the lists and objects of a JSON text may have.

    Attributes:
        by_name: limit of the one in the field of this name, at any depth. The text's outermost value has the
            name "".
        others: limit of all others.
    """

    by_name: Mapping[str, int] = field(default_factory=dict)
    others: int = _OTHERS

    @property
    def least(self) -> int:
        """The number of items that any list or object may have."""
        return min(self.others, *self.by_name.values()) if self.by_name else self.others

    @property
    def values(self) -> int:
        """The number of values that the whole text may have."""
        return _VALUES_AN_ITEM * max(_LEAST_ITEMS, *self.by_name.values(), 0)


@dataclass(slots=True)
class _Open:
    """A list or object that has begun.

    Attributes:
        name: name of its field; None in a list.
        most: how many items it may have.
        commas: how many have come.
    """

    name: str | None
    most: int
    is_object: bool
    commas: int = 0


def check_counts(text: bytes | bytearray, counts: Counts, field: str = "body") -> None:
    """Refuse a JSON text with too many values. A text that is not JSON may pass: parsing refuses it.

    Args:
        field: what errors call the text.

    Raises:
        InvalidInputError: names the dotted path of the list or object that has too many items; code
            `invalid_json` if they are nested too deeply.
    """
    if text.count(b",") < counts.least and text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return
    left = counts.values
    stack: list[_Open] = []
    for start, end, sign in _signs(text):
        if sign == _COMMA:
            left -= 1
            if stack:
                stack[-1].commas += 1
                if stack[-1].commas >= stack[-1].most:
                    raise too_many(stack[-1].most, _path(stack, field))
        elif sign in _ENDS:
            if not stack:
                return
            stack.pop()
        else:
            left -= 1
            name = _name(text, start, end) if stack and stack[-1].is_object else None
            known = name if stack else ""
            most = counts.others if known is None else counts.by_name.get(known, counts.others)
            stack.append(_Open(name, most, sign == _OBJECT))
            if len(stack) > MAX_DEPTH:
                raise too_deep(_path(stack, field))
        if left < 0:
            raise InvalidInputError(
                f"The JSON has more than {counts.values} values: send fewer, or several requests.",
                field=field,
            )


def check_texts(text: bytes | bytearray, limit: int) -> None:
    """Refuse a JSON text whose strings would take much more memory than the text. One character beyond U+FFFF
    (an emoji) makes each character of its string take four bytes.

    Args:
        limit: how many bytes `text` itself may have.

    Raises:
        TooLargeError: the strings would take too much.
    """
    most = 5 * limit // 2
    if 4 * len(text) <= most:
        return
    wide = escaped = 0
    end = 0
    while (begin := text.find(b'"', end)) >= 0 and (end := end_of_text(text, begin + 1)):
        literal = text[begin:end]
        if b"\\" in literal:
            escaped = max(escaped, len(literal))  # it is decoded separately first
        elif literal.isascii():
            continue
        if any(_BEYOND.search(literal, at, at + _WINDOW + 3) for at in range(0, len(literal), _WINDOW)):
            wide += len(literal.translate(None, _LATER_BYTES))
        if 4 * wide + escaped > most:
            raise TooLargeError(
                f"The body's texts would take more than {most} bytes of memory, because of characters "
                "beyond U+FFFF: send fewer or shorter inputs.",
                field="body",
            )


def span_of(text: bytes | bytearray, name: str) -> tuple[int, int] | None:
    """Where the object or list in a field of the outermost object begins and ends; None if there is none."""
    depth = begin = 0
    for start, end, sign in _signs(text):
        if sign in _ENDS:
            depth -= 1
            if begin and depth == 1:
                return begin, end
        elif sign != _COMMA:
            if depth == 1 and _name(text, start, end) == name:
                begin = end - 1
            depth += 1
    return None


def too_many(most: int, field: str) -> InvalidInputError:
    """The refusal of a list or object with more than `most` items."""
    return InvalidInputError(
        f"There are more than {most} items here, which is the limit: send fewer, or several requests.",
        field=field,
    )


def too_deep(field: str) -> InvalidInputError:
    """The refusal of what is nested deeper than `MAX_DEPTH`."""
    return InvalidInputError(
        f"The JSON is nested deeper than {MAX_DEPTH} levels: flatten it.", field=field, code="invalid_json"
    )


def _signs(text: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """`(start, end, sign)` of each bracket and comma outside strings; `start` is where the one before ended.

    Stops early at a string that does not end.
    """
    start = at = 0
    while at < len(text) and (step := _STEP.match(text, at)):
        at = step.end()
        if step.lastindex == 1:
            yield start, at, text[at - 1]
            start = at
        elif step.lastindex == 2:  # a long string begins
            at = end_of_text(text, at)
            if not at:
                return


def end_of_text(text: bytes | bytearray, at: int) -> int:
    """Where the string around `at` ends, including its quote; 0 if it does not end."""
    while step := _INSIDE.match(text, at):
        end = step.end()
        if text[end : end + 1] == b'"':
            return end + 1
        if end == at:
            break
        at = end
    return 0


def _name(text: bytes | bytearray, start: int, end: int) -> str:
    """The name of the field whose value begins before `end`; `?` if it has unusual characters, as in
    `join_path`."""
    key = _KEY.match(text, start, end)
    return key[1].decode() if key else "?"


def _path(stack: list[_Open], field: str) -> str:
    inner = [
        opened.name if opened.name is not None else str(around.commas) for around, opened in pairwise(stack)
    ]
    return ".".join(([] if field == "body" and inner else [field]) + inner)
