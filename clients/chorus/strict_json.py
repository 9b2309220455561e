"""JSON that the caller wrote: each key once, and no numbers that JSON does not have. What is lost here, the
server could not refuse."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_strictly(text: str) -> Any:
    """The value in a text.

    Raises:
        ValueError: not JSON, NaN or an infinity, or a key that an object has twice.
        RecursionError: nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_each_key_once)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
