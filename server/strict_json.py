"""JSON in files that others wrote: each key once, and no numbers that JSON does not have.

What callers send has its own reader (`api/http/json_body`), which counts before it parses.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_strictly(text: str) -> Any:
    """The value in a text that the caller has bounded in size.

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
