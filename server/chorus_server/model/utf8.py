"""Texts as UTF-8, counted and cut by characters without becoming strings."""

from __future__ import annotations

_LATER_BYTES = bytes(range(0x80, 0xC0))  # of a character
_WINDOW = 1 << 12


def characters(text: bytes) -> int:
    """How many characters a text has."""
    if text.isascii():
        return len(text)
    return sum(_starts(text[at : at + _WINDOW]) for at in range(0, len(text), _WINDOW))


def first_characters(text: bytes, count: int) -> bytes:
    """The first characters of a text; the text itself where it has no more."""
    end, left = 0, count
    while left and end < len(text):
        window = text[end : end + min(left, _WINDOW)]
        end += len(window)
        left -= _starts(window)
    while end < len(text) and text[end] in _LATER_BYTES:
        end += 1
    return text[:end]


def last_characters(text: bytes, count: int) -> bytes:
    """The last characters of a text; the text itself where it has no more."""
    return text[len(first_characters(text, max(0, characters(text) - count))) :]


def _starts(text: bytes) -> int:
    return len(text.translate(None, _LATER_BYTES))
