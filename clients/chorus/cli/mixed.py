"""Files of requests for mixed tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from chorus.client import Client
from chorus.errors import ApiError, InvalidArgumentError
from chorus.routes.inference import GenerateItem
from chorus.strict_json import parse_strictly
from chorus.types import FailedItem, Generation


def read_requests(path: Path) -> list[tuple[int, GenerateItem]]:
    """Line numbers and requests of a JSON Lines file. Empty lines are skipped. The server checks the content.

    Raises:
        InvalidArgumentError: the file is unreadable, or a line is not an object with an input.
    """
    try:
        # Windows writes a byte order mark; U+2028 and similar characters do not end a line of JSON.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgumentError(f"{str(path)!r} cannot be read: {reason}.", field="file") from error
    found: list[tuple[int, GenerateItem]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item: Any = parse_strictly(line)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(
                f"{str(path)!r}, line {number} is not JSON: {error}.", field="file"
            ) from error
        if not isinstance(item, dict) or "input" not in item:
            raise InvalidArgumentError(
                f'{str(path)!r}, line {number} must be an object such as {{"task", "input"}}.', field="file"
            )
        found.append((number, cast(GenerateItem, item)))
    if not found:
        raise InvalidArgumentError(f"{str(path)!r} has no requests.", field="file")
    return found


def ask_file(
    client: Client, path: Path, batch_size: int, settings: dict[str, Any]
) -> list[Generation | FailedItem]:
    """The answers to a file's requests, in order. `settings` apply to lines that do not set them.

    Raises:
        ApiError: a batch was refused; the error says from which line it began.
    """
    requests = read_requests(path)
    results: list[Generation | FailedItem] = []
    for start in range(0, len(requests), batch_size):
        batch = requests[start : start + batch_size]
        try:
            results += client.generate(requests=[item for _, item in batch], **settings).results
        except ApiError as error:
            error.message += f" (requests.0 is line {batch[0][0]} of {str(path)!r})"
            raise
    return results
