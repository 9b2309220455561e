"""A strict reader for JSON files that others wrote: each key once, and no numbers that JSON does not have.

Bodies of requests have their own reader (`api/http/json_body`), which counts before it parses.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_strictly(text: str) -> Any:
    """Parse a text whose size the caller has bounded.

    Raises:
        ValueError: it is not JSON, it has NaN or an infinity, or an object has a key twice.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_each_key_once)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
