"""Checks whether what a caller sends can be stored: texts, numbers, JSON objects, fingerprints."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from prompts_store.digests import canonical_json
from prompts_store.errors import InvalidError
from prompts_store.text import has_control_characters, is_unicode, shown

MAX_DEPTH = 32
MAX_ACTOR_CHARACTERS = 256

_FINGERPRINT = re.compile(r"[A-Za-z0-9:._-]{1,128}", re.ASCII)


def check_fingerprint(fingerprint: object, *, field: str) -> str:
    """Return the fingerprint of a base model if it has the form of one.

    Raises:
        InvalidError: names `field`.
    """
    if isinstance(fingerprint, str) and _FINGERPRINT.fullmatch(fingerprint):
        return fingerprint
    raise InvalidError(
        f"{shown(fingerprint)} is not a fingerprint; send the one that GET /v1/model shows, or leave it out.",
        field=field,
    )


def check_object(value: object, *, field: str, limit_bytes: int) -> dict[str, Any]:
    """A JSON object as plain values.

    Raises:
        InvalidError: it is not an object, not JSON (NaN, bytes, lone surrogates), or larger than the limit.
    """
    if not isinstance(value, Mapping):
        raise InvalidError(f"{field} must be a JSON object, not {type(value).__name__}.", field=field)
    try:
        size = len(canonical_json(value))
    except (ValueError, RecursionError) as error:
        raise InvalidError(
            f"{field} is not JSON: {error}; send finite numbers, texts and lists.", field=field
        ) from None
    if size > limit_bytes:
        raise InvalidError(f"{field} has {size} bytes as JSON; the limit is {limit_bytes}.", field=field)
    plain: dict[str, Any] = _plain(value, field, MAX_DEPTH)
    return plain


def is_finite(number: object) -> TypeGuard[int | float]:
    """Whether a float can represent this number: no bool, no NaN, no infinity, no integer beyond 1.8e308."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def check_text(value: object, *, field: str, limit: int = MAX_ACTOR_CHARACTERS) -> str:
    """A short text for people, without control characters except tabs and new lines.

    Raises:
        InvalidError: names `field`.
    """
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidError(f"{field} must be a text of at most {limit} characters.", field=field)
    if not is_unicode(value) or has_control_characters(value, allowed="\t\n"):
        raise InvalidError(
            f"{field} has control characters or lone surrogates; send plain text.", field=field
        )
    return value


def _plain(value: Any, field: str, depth: int) -> Any:
    """The value in JSON's own types. Texts must have no NUL or lone surrogates, which PostgreSQL cannot
    store."""
    if depth == 0:
        raise InvalidError(f"{field} is nested deeper than {MAX_DEPTH} levels.", field=field)
    if isinstance(value, str):
        if not is_unicode(value) or "\0" in value:
            raise InvalidError(f"{field} has NUL or lone surrogates; send valid Unicode text.", field=field)
        return value
    if isinstance(value, Mapping):
        return {_plain(key, field, depth): _plain(item, field, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, field, depth - 1) for item in value]
    return value
