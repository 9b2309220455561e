"""Small checks of text that a caller sent, and how to show it back without trusting it."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SHOWN_CHARACTERS = 60


def shown(value: object) -> str:
    """A caller's value for an error message: ASCII, escaped, short. Never the raw text."""
    text = ascii(value[: _SHOWN_CHARACTERS + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def is_unicode(text: str) -> bool:
    """Whether the text has a UTF-8 form: no lone surrogates, which JSON escapes let through."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def has_control_characters(text: str, *, allowed: str = "") -> bool:
    """Whether the text holds C0 or C1 control characters (NUL, escape sequences) other than `allowed`."""
    return any(found[0] not in allowed for found in _CONTROL.finditer(text))
