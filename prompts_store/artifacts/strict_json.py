"""A JSON reader for strangers' files: small, shallow, each key once, finite numbers, text that UTF-8 can
encode."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from prompts_store.artifacts.reasons import Reason, refusal
from prompts_store.text import is_unicode, shown

# A string (up to the end of the text if it is never closed), or an opening or closing bracket. The
# quantifiers are possessive and no character is scanned from two starts, so the scan is linear for any text.
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse_object(data: bytes, *, what: str, reason: Reason, max_depth: int) -> dict[str, Any]:
    """A JSON object from bytes that the caller has bounded in size.

    Args:
        data: UTF-8 without a byte order mark.
        what: the part of the file that messages name ("The safetensors header").
        reason: the reason of every refusal except for a repeated key.
        max_depth: deepest nesting allowed; checked before parsing, because the parser recurses.

    Raises:
        ArtifactError: `reason`, or `duplicate_key`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise refusal(reason, f"{what} is not UTF-8 text.") from None
    if _depth(text) > max_depth:
        raise refusal(reason, f"{what} is nested more than {max_depth} levels deep.")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                raise refusal(Reason.DUPLICATE_KEY, f"{what} has the key {shown(key)} twice.")
            _check_text(key, what, reason)
            _check_texts(value, what, reason)
            found[key] = value
        return found

    try:
        value = json.loads(
            text, object_pairs_hook=pairs, parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except (ValueError, RecursionError):
        raise refusal(reason, f"{what} is not valid JSON with finite numbers.") from None
    if not isinstance(value, dict):
        raise refusal(reason, f"{what} is not a JSON object.")
    return value


def _check_texts(value: Any, what: str, reason: Reason) -> None:
    """Check the strings of one value. Objects inside it were checked when they were complete."""
    if isinstance(value, str):
        _check_text(value, what, reason)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, what, reason)


def _check_text(text: str, what: str, reason: Reason) -> None:
    if not is_unicode(text):
        raise refusal(reason, f"{what} has lone surrogates; write valid Unicode text.")


def _depth(text: str) -> int:
    depth = deepest = 0
    for token in _STRUCTURE.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("too large for a float")
    return value
