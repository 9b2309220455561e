"""Rows of a table as lines of a batch, and its answers as further columns."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chorus.cli.table_files import Row, columns_of, rows_of
from chorus.errors import InvalidArgumentError

_FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")

COLUMNS = {
    "/v1/classify": ("answer", "probability", "error"),
    "/v1/generate": ("answer", "error"),
}
"""What each route adds to a row."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about every row.

    Attributes:
        task: None for the base model, which reads one column as it is.
        columns: the column of each field of the template.
        settings: further fields of each request.
        prefix: of the added columns.
    """

    endpoint: Literal["/v1/classify", "/v1/generate"]
    task: str | None
    columns: Mapping[str, str]
    settings: Mapping[str, Any]
    prefix: str = ""

    @property
    def added(self) -> list[str]:
        """The columns that answers add."""
        return [self.prefix + name for name in COLUMNS[self.endpoint]]

    def check(self, source: Path) -> None:
        """Refuse a table without what is asked, or with what is added. Raises InvalidArgumentError."""
        found = columns_of(source)
        for field, column in self.columns.items():
            if column not in found:
                shown = ", ".join(found[:20]) or "none"
                raise InvalidArgumentError(
                    f"{str(source)!r} has no column {column!r} for the field {field!r}; it has {shown}. Name "
                    f"it with --column {field}=COLUMN."
                )
        for name in self.added:
            if name in found:
                raise InvalidArgumentError(f"{str(source)!r} has a column {name!r}: give a --prefix.")

    def lines(self, source: Path) -> Iterator[bytes]:
        """A line for each row; its id is the row's number, from 1."""
        for number, row in enumerate(rows_of(source), 1):
            values = {field: _text(row, column, number) for field, column in self.columns.items()}
            asked = values if self.task is not None else next(iter(values.values()))
            body = {"task": self.task, "input": asked, **self.settings}
            line = {"custom_id": str(number), "method": "POST", "url": self.endpoint, "body": body}
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"

    def joined(self, source: Path, files: Sequence[Path]) -> Iterator[Row]:
        """Each row with its answer. The lines of each file are in the order of the rows."""
        lines = heapq.merge(*(rows_of(file) for file in files), key=lambda line: int(line["custom_id"]))
        for number, row in enumerate(rows_of(source), 1):
            line = next(lines, None)
            if line is None or line["custom_id"] != str(number):
                raise InvalidArgumentError(f"There is no answer to row {number}: the file has changed.")
            yield {**row, **dict(zip(self.added, self._answer(line["response"]["body"]), strict=True))}

    def _answer(self, body: Mapping[str, Any]) -> tuple[Any, ...]:
        if "error" in body:
            error = body["error"]
            return (*[None] * (len(self.added) - 1), f"{error.get('code')}: {error.get('message')}")
        (result,) = body["results"]
        if self.endpoint == "/v1/generate":
            return result["text"], None
        return result["label"], result["probabilities"][result["label"]], None


def fields_of(template: str) -> list[str]:
    """The fields of a template, in order."""
    return list(dict.fromkeys(name for name in _FIELD.findall(template) if name))


def _text(row: Row, column: str, number: int) -> str:
    value = row.get(column)
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    what = "nothing" if value is None else type(value).__name__
    raise InvalidArgumentError(f"row {number}: the column {column!r} has {what} where a text is asked for.")
