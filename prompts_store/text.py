"""Small checks of text that a caller sent, and how to show it back without trusting it."""

from __future__ import annotations

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
    return any((ord(c) < 32 or 127 <= ord(c) < 160) and c not in allowed for c in text)
