"""Small files of examples become inputs, and answers become words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from starlette.exceptions import HTTPException

from chorus.types import Classification, EnsembleAnswer, FailedItem, Generation

MOST_ROWS = 200
MOST_COLUMNS = 200
_MOST_BYTES = 1 << 20


def read(content: bytes, name: str) -> list[str | dict[str, str]]:
    """The rows of a file: JSON Lines, CSV or TSV with a first line of names, or a text in each line.

    Args:
        name: the file's, whose ending tells what it is; empty for what was pasted.

    Raises:
        HTTPException: 400, says which line is wrong, or what there is too much of: it is not read further.
    """
    if len(content) > _MOST_BYTES:
        raise HTTPException(400, "The rows have more than 1 MiB in all. Make a batch of so much.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"The file is not UTF-8: byte {error.start + 1}.") from None
    ending = name.lower().rpartition(".")[2]
    lines = list(islice(filled_lines(text), MOST_ROWS + 1))
    if ending in ("jsonl", "ndjson", "json") or (not name and lines and lines[0].lstrip().startswith("{")):
        return [_object(line, number) for number, line in enumerate(_few(lines), 1)]
    if ending in ("csv", "tsv") or (not name and lines and "\t" in lines[0]):
        return table(text, "," if ending == "csv" else "\t")
    return [line.strip() for line in _few(lines)]


def filled_lines(text: str) -> Iterator[str]:
    """The lines that have something in them, one at a time."""
    return (line for line in io.StringIO(text, newline=None) if line.strip())


def _few(lines: list[str]) -> list[str]:
    if len(lines) > MOST_ROWS:
        raise HTTPException(400, f"Up to {MOST_ROWS} rows are answered here. Make a batch of more.")
    return lines


def table(text: str, delimiter: str) -> list[str | dict[str, str]]:
    """The rows of a table whose first line has the columns' names."""
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: list[str | dict[str, str]] = []
    try:
        if len(reader.fieldnames or ()) > MOST_COLUMNS:
            raise HTTPException(400, f"The first line names more than {MOST_COLUMNS} columns.")
        for row in reader:
            if len(found) == MOST_ROWS:
                raise HTTPException(400, f"Up to {MOST_ROWS} rows are answered here. Make a batch of more.")
            if None in row or None in row.values():
                raise HTTPException(
                    400, f"Line {reader.line_num} has another number of columns than the first line."
                )
            found.append(dict(row))
    except csv.Error as error:
        raise HTTPException(400, f"Line {reader.line_num} cannot be read: {error}.") from None
    return found


def _object(line: str, number: int) -> dict[str, str]:
    texts = texts_of(line)
    if texts is None or len(texts) > MOST_COLUMNS:
        raise HTTPException(400, f"Line {number} is no JSON object of up to {MOST_COLUMNS} fields.")
    return texts


def texts_of(line: str) -> dict[str, str] | None:
    """A JSON object with its values as texts; None if a line is none."""
    try:
        value: Any = json.loads(line)
        if not isinstance(value, dict):
            return None
        return {name: each if isinstance(each, str) else json.dumps(each) for name, each in value.items()}
    except (ValueError, RecursionError):
        return None


def label(answer: Classification | Generation | EnsembleAnswer | FailedItem) -> tuple[str, float | None]:
    """An answer in a word, and how sure it is."""
    match answer:
        case Classification():
            return answer.label, answer.probabilities.get(answer.label)
        case EnsembleAnswer():
            return answer.answer, answer.agreement
        case Generation():
            return answer.text, None
    return f"failed: {answer.error.message}", None
