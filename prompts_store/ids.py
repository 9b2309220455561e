"""Ids of data files, jobs and keys. Random, so none can be guessed and none shows how many there are."""

from __future__ import annotations

import re
import secrets

from prompts_store.errors import InvalidError

FILE, JOB, API_KEY = "file", "job", "key"

_ID = re.compile(r"(?:file|job|key)-[0-9a-f]{24}")


def new_id(kind: str) -> str:
    """A fresh id, `file-`, `job-` or `key-` and 24 hexadecimal digits."""
    return f"{kind}-{secrets.token_hex(12)}"


def is_id(text: object) -> bool:
    """Whether a text has the form of an id."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def check_cursor_id(text: object) -> str:
    """The id in a cursor. Raises InvalidError if it is not an id."""
    if isinstance(text, str) and is_id(text):
        return text
    raise InvalidError("not an id", field="cursor")
