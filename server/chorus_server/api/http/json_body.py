"""JSON bodies, counted and parsed strictly, before any route code sees them.

Refused at once: lists and objects with too many items, invalid UTF-8, NaN, infinities and numbers that
overflow to them, lone surrogates, NUL characters, nesting deeper than `MAX_DEPTH`, and anything that is not
JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

from pydantic_core import from_json

from chorus_server.api.http.json_counts import MAX_DEPTH, Counts, check_counts, too_deep
from chorus_server.api.http.json_texts import LongTexts
from chorus_server.errors import InvalidInputError
from chorus_server.validation import join_path

__all__ = ["MAX_DEPTH", "check_values", "parse_json"]

_VISIBLE = re.compile(rb"[^ \t\r\n]")


def parse_long(body: bytearray, counts: Counts, kept: Collection[str]) -> Any:
    """Strictly parsed JSON of a long body, which is then empty.

    Args:
        kept: names of the fields whose long texts come as UTF-8; those of others are cut. See `LongTexts`.

    Raises:
        InvalidInputError: as `parse_json`.
    """
    _check_first(body, counts, "body")
    texts = LongTexts(body, 2 * counts.values + 1)
    value = _parsed(body, "body")
    body.clear()
    value = texts.put_back(value, kept)
    check_values(value)
    return value


def parse_json(body: bytes | bytearray, field: str = "body", counts: Counts | None = None) -> Any:
    """Parse JSON strictly.

    Raises:
        InvalidInputError: code `invalid_json`, saying where the parser stopped but never showing the text; or
            too many values, see `check_counts`.
    """
    _check_first(body, counts or Counts(), field)
    value = _parsed(body, field)
    check_values(value, field)
    return value


def _check_first(body: bytes | bytearray, counts: Counts, field: str) -> None:
    if not _VISIBLE.search(body):
        raise InvalidInputError("The body is empty: send a JSON object.", field=field, code="invalid_json")
    check_counts(body, counts, field)


def _parsed(body: bytes | bytearray, field: str) -> Any:
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInputError(
            f"The body is not valid JSON: {error}.", field=field, code="invalid_json"
        ) from None


def check_values(value: Any, field: str = "body") -> None:
    """Refuse values that valid JSON can hold and we do not want: numbers that overflow to infinity, NUL, deep
    nesting.

    Raises:
        InvalidInputError: code `invalid_json`, with the dotted path of the value.
    """
    if not _is_sound(value):
        _refuse(value, field)


def _is_sound(value: Any) -> bool:
    """Checks level by level, without the paths that only a refusal needs."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                if "\0" in item:
                    return False
            elif kind is bytes:
                if b"\0" in item:
                    return False
            elif kind is float:
                if not math.isfinite(item):
                    return False
            elif kind is dict:
                inner += item
                inner += item.values()
            elif kind is list:
                inner += item
        if not inner:
            return True
        level = inner
    return False


def _refuse(value: Any, field: str) -> None:
    stack: list[tuple[Any, str, int]] = [(value, "" if field == "body" else field, 0)]
    while stack:
        item, path, depth = stack.pop()
        if isinstance(item, str | bytes):
            _check_text(item, path or field)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise _invalid(
                    "The number is too large for a 64-bit float: send a finite one.", path or field
                )
        elif isinstance(item, dict | list):
            if depth >= MAX_DEPTH:
                raise too_deep(path or field)
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            for key, inner in pairs:
                if isinstance(key, str):
                    _check_text(key, path or field)
                stack.append((inner, join_path(path, key), depth + 1))


def _check_text(text: str | bytes, path: str) -> None:
    if ("\0" if isinstance(text, str) else b"\0") in text:  # type: ignore[operator]
        raise _invalid("The text holds a NUL character: remove it.", path)


def _invalid(message: str, field: str) -> InvalidInputError:
    return InvalidInputError(message, field=field, code="invalid_json")
