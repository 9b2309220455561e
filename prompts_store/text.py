"""Small checks of texts that callers send, and a safe way to show such a text."""

from __future__ import annotations

import re
from collections.abc import Iterable

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SHOWN_CHARACTERS = 60


def shown(value: object) -> str:
    """A caller's value for an error message: ASCII, escaped, short. Never the raw text."""
    text = ascii(value[: _SHOWN_CHARACTERS + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def quoted(names: Iterable[str]) -> str:
    """Names, each in quotes, for an error message."""
    return ", ".join(f"'{name}'" for name in names)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode the text. It cannot encode lone surrogates, which JSON escapes allow."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def has_control_characters(text: str, *, allowed: str = "") -> bool:
    """Whether the text has C0 or C1 control characters (NUL, escape sequences) other than `allowed`."""
    return any(found[0] not in allowed for found in _CONTROL.finditer(text))
