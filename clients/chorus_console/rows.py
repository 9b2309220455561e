"""Small files of examples become inputs, and answers become words."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from starlette.exceptions import HTTPException

from chorus.types import Classification, EnsembleAnswer, FailedItem, Generation


def read(content: bytes, name: str) -> list[str | dict[str, str]]:
    """The rows of a file: JSON Lines, CSV or TSV with a first line of names, or a text in each line.

    Args:
        name: the file's, whose ending tells what it is; empty for what was pasted.

    Raises:
        HTTPException: 400, says which line is wrong.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"The file is not UTF-8: byte {error.start + 1}.") from None
    ending = name.lower().rpartition(".")[2]
    lines = [line for line in text.splitlines() if line.strip()]
    if ending in ("jsonl", "ndjson", "json") or (not name and lines and lines[0].lstrip().startswith("{")):
        return [_object(line, number) for number, line in enumerate(lines, 1)]
    if ending in ("csv", "tsv") or (not name and lines and "\t" in lines[0]):
        return table(text, "," if ending == "csv" else "\t")
    return [line.strip() for line in lines]


def table(text: str, delimiter: str) -> list[str | dict[str, str]]:
    """The rows of a table whose first line has the columns' names."""
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found: list[str | dict[str, str]] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise HTTPException(
                    400, f"Line {reader.line_num} has another number of columns than the first line."
                )
            found.append(dict(row))
    except csv.Error as error:
        raise HTTPException(400, f"Line {reader.line_num} cannot be read: {error}.") from None
    return found


def _object(line: str, number: int) -> dict[str, str]:
    try:
        value: Any = json.loads(line)
    except ValueError:
        raise HTTPException(400, f"Line {number} is not JSON.") from None
    if not isinstance(value, dict):
        raise HTTPException(400, f"Line {number} is no object of fields.")
    return {str(name): each if isinstance(each, str) else json.dumps(each) for name, each in value.items()}


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
