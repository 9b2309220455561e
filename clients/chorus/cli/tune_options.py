"""Options of `chorus tune` that become parts of a job document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from chorus.routes.files import FILE_ID
from chorus.routes.tuning import Data
from chorus.strict_json import parse_strictly

_URL = re.compile(r"https?://")
SERVER_PATH = "server:"
SPLITS = ("train", "validation", "test")


def data_of(text: str, name: str, folder: Path = Path()) -> Data:
    """What a DATA argument means: the id of an uploaded file, a URL or path for the server, or a local file.

    Args:
        folder: to which the name of a local file is relative.

    Raises:
        UsageError: it names a local file that does not exist.
    """
    if FILE_ID.fullmatch(text):
        return text
    if _URL.match(text):
        return {"url": text}
    if text.startswith(SERVER_PATH):
        return {"path": text.removeprefix(SERVER_PATH)}
    path = folder / text
    if not path.is_file():
        raise click.UsageError(
            f"{name} {str(path)!r} is not a local file. Give a local file, the id of an uploaded one, a URL, "
            f"or {SERVER_PATH}PATH for a file that the server may read."
        )
    return path


def take_splits(document: dict[str, Any], folder: Path) -> dict[str, Data]:
    """Take out of a document's `data` the splits that it names by a text, as an argument would, and say what
    they mean. A local file is relative to the document's folder.

    Raises:
        UsageError: a text names a local file that does not exist.
    """
    data = document.get("data")
    if not isinstance(data, dict):
        return {}
    named = {split: data[split] for split in SPLITS if isinstance(data.get(split), str)}
    document["data"] = {name: value for name, value in data.items() if name not in named}
    return {split: data_of(text, f"data.{split}", folder) for split, text in named.items()}


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` options as an object.

    Raises:
        UsageError: an option has no `=` or no name, or a name comes twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} {value!r} must be NAME=VALUE.")
        if name in found:
            raise click.UsageError(f"{option} names {name!r} twice.")
        found[name] = rest
    return found


def json_pairs(values: Iterable[str], option: str) -> dict[str, Any]:
    """`NAME=VALUE` options as an object. A value that is JSON (`300`, `0.1`, `true`) is parsed; any other is
    a text."""
    found: dict[str, Any] = {}
    for name, text in pairs(values, option).items():
        try:
            found[name] = parse_strictly(text)
        except ValueError:
            found[name] = text
    return found


def document_of(path: Path) -> dict[str, Any]:
    """A job document from a file.

    Raises:
        UsageError: it cannot be read, or is not a JSON object.
    """
    try:
        document = parse_strictly(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{str(path)!r} is not JSON:  {error}.") from error
    if not isinstance(document, dict):
        raise click.UsageError(f"{str(path)!r} must contain a JSON object, the job document.")
    return document
