"""Small JSON files of a checkpoint: read within bounds and written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chorus_server.errors import InvalidModelError
from chorus_server.strict_json import parse_strictly

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InvalidModelError: the file is missing, larger than 64 MiB, not JSON (see `strict_json`), or not an
            object.
    """
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise InvalidModelError(f"{path.name} is larger than {MAX_DOCUMENT_BYTES} bytes")
        document = parse_strictly(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise InvalidModelError(f"{path.parent} has no {path.name}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidModelError(f"{path.name} must contain a JSON object")
    return document


def quoted(value: Any) -> str:
    """A word from a file, for an error: quoted, escaped, short."""
    return json.dumps(value, default=str)[:100]


def write_json(path: Path, document: Any) -> None:
    """Write indented JSON with a final newline. NaN is refused."""
    path.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
