"""Reads a JSON object field by field: what is wrong is refused with its dotted path."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from prompts_store.text import has_control_characters, is_unicode, shown
from server.errors import InvalidInputError

MAX_TEXT_CHARACTERS = 16_384
MAX_ITEMS = 512
"""Texts of a list, or fields of an object."""
_MAX_DEPTH = 16


class Document:
    """One object of a request body.

    Args:
        value: what was sent.
        path: of the object itself; empty at the top.
        known: its fields; others are refused.
        paths: fields that came from elsewhere, with their own dotted paths.

    Raises:
        InvalidInputError: it is no object, or has an unknown field.
    """

    def __init__(
        self, value: Any, path: str, known: Sequence[str], paths: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        self._paths = paths or {}
        if not isinstance(value, Mapping):
            refuse(f"an object is expected, not {_kind(value)}", path or "body")
        self.value: Mapping[str, Any] = value
        for name in value:
            if name not in known:
                message = f"there is no field {shown(name)} here; there are {', '.join(known)}"
                raise InvalidInputError(message, field=path or None, code="unknown_field")

    def at(self, name: str) -> str:
        """The dotted path of a field."""
        if name in self._paths:
            return self._paths[name]
        return f"{self.path}.{name}" if self.path else name

    def within(self, name: str, inner: str) -> str:
        """The dotted path of a field of an object that this one holds."""
        return self._paths.get(f"{name}.{inner}", f"{self.at(name)}.{inner}")

    def get(self, name: str) -> Any:
        """The value as it was sent; None when it is absent or null."""
        return self.value.get(name)

    def text(self, name: str, default: str | None = None, *, most: int = MAX_TEXT_CHARACTERS) -> str:
        """A text of 1 to `most` characters. Without a default it is required."""
        value = self.get(name)
        if value is None:
            if default is None:
                refuse("is required", self.at(name), code="missing_field")
            return default
        return checked_text(value, self.at(name), most)

    def optional_text(self, name: str, *, most: int = MAX_TEXT_CHARACTERS) -> str | None:
        """A text, or None."""
        return None if self.get(name) is None else self.text(name, most=most)

    def whole(self, name: str, default: int | None, lowest: int, highest: int) -> int | None:
        """A whole number within bounds."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            refuse(f"must be a whole number from {lowest} to {highest}, got {_kind(value)}", self.at(name))
        return value

    def flag(self, name: str) -> bool:
        """A truth value; false when absent."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            refuse(f"must be true or false, got {_kind(value)}", self.at(name))
        return bool(value)

    def choice(self, name: str, choices: Sequence[str], default: str | None) -> str | None:
        """One of some words."""
        value = self.get(name)
        if value is None:
            return default
        if value not in choices:
            refuse(f"must be one of {', '.join(choices)}, got {shown(value)}", self.at(name))
        return str(value)

    def texts(self, name: str, *, most: int = MAX_ITEMS) -> tuple[str, ...]:
        """A list of texts; empty when absent."""
        value = self.get(name)
        if value is None:
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence) or len(value) > most:
            refuse(f"must be a list of at most {most} texts, got {_kind(value)}", self.at(name))
        return tuple(checked_text(each, f"{self.at(name)}.{n}") for n, each in enumerate(value))

    def text_map(self, name: str, *, most: int = MAX_ITEMS) -> dict[str, str]:
        """An object whose values are texts; empty when absent."""
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or len(value) > most:
            refuse(f"must be an object of at most {most} texts, got {_kind(value)}", self.at(name))
        return {
            checked_text(key, self.at(name)): checked_text(each, f"{self.at(name)}.{key}")
            for key, each in value.items()
        }

    def json_object(self, name: str) -> dict[str, Any]:
        """An object of any JSON values; empty when absent."""
        value = self.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not _is_json(value, _MAX_DEPTH):
            refuse(f"must be an object of JSON values, got {_kind(value)}", self.at(name))
        return dict(value)


def checked_text(value: Any, path: str, most: int = MAX_TEXT_CHARACTERS) -> str:
    """The text itself. Raises InvalidInputError naming `path` when it is none."""
    if not isinstance(value, str):
        refuse(f"must be a text, got {_kind(value)}", path)
    if not 1 <= len(value) <= most:
        refuse(f"must have 1 to {most} characters, got {len(value)}", path)
    if not is_unicode(value) or has_control_characters(value, allowed="\t\n\r"):
        refuse("holds control characters or lone surrogates; send printable text", path)
    return value


def refuse(message: str, path: str, code: str | None = None) -> NoReturn:
    """Raise InvalidInputError: `path message`."""
    raise InvalidInputError(f"{path} {message}", field=path, code=code)


def _kind(value: Any) -> str:
    """What was got, for a person."""
    if isinstance(value, bool | int | float) or value is None:
        return json.dumps(value)[:40]
    if isinstance(value, str):
        return f"the text {shown(value)}"
    return {"dict": "an object", "list": "a list"}.get(type(value).__name__, type(value).__name__)


def _is_json(value: Any, depth: int) -> bool:
    if depth == 0:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(each, depth - 1) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(_is_json(each, depth - 1) for each in value)
    if isinstance(value, str):
        return is_unicode(value)
    return (
        value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    )
