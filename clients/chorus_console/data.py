"""What is in a file of training data, as somebody wants to see it before anything is queued."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException

MOST_LABELS = 20
_SHOWN = 5
_MOST_PROBLEMS = 20
_TARGETS = ("label", "target", "answer", "class", "category", "output", "completion")

Row = dict[str, str]


@dataclass(slots=True)
class Look:
    """What is in a file.

    Attributes:
        columns: names, in the order of the file.
        rows: how many there are.
        first: the first of them.
        problems: what is wrong, with row numbers counted from 1.
        target: the column that looks like the answer.
        answers: the values of that column, if they are few enough to be labels.
        template: one that has all other columns.
    """

    columns: list[str] = field(default_factory=list)
    rows: int = 0
    first: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    target: str = ""
    answers: list[str] = field(default_factory=list)
    template: str = ""


def look(content: bytes, name: str) -> Look:
    """Read a whole file.

    Raises:
        HTTPException: 400, it is no table at all.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise HTTPException(400, f"The file is not UTF-8: line {line}.") from None
    ending, found = name.lower().rpartition(".")[2], Look()
    if ending in ("jsonl", "ndjson"):
        rows = _objects(text, found)
    elif ending in ("csv", "tsv"):
        rows = _table(text, "," if ending == "csv" else "\t", found)
    else:
        raise HTTPException(400, "The name of the file ends in .csv, .tsv or .jsonl.")
    found.rows, found.first = len(rows), rows[:_SHOWN]
    if not rows and not found.problems:
        found.problems.append("The file has no rows.")
    if rows and len(found.columns) < 2:
        found.problems.append("There is one column; an input and an answer are two.")
    if found.problems:
        return found
    found.target = next((each for each in _TARGETS if each in found.columns), found.columns[-1])
    _answers(rows, found)
    others = [field_name(column) for column in found.columns if column != found.target]
    one = len(others) == 1
    found.template = f"{{{others[0]}}}" if one else " ".join(f"{name}: {{{name}}}" for name in others)
    return found


def _answers(rows: list[Row], found: Look) -> None:
    counts = Counter(row[found.target] for row in rows)
    if "" in counts:
        empty = next(number for number, row in enumerate(rows, 1) if not row[found.target])
        found.problems.append(f"Row {empty}: {found.target} is empty.")
    if 2 <= len(counts) <= MOST_LABELS:
        found.answers = sorted(counts)


def field_name(column: str) -> str:
    """A field of a template for a column, whose name may have blanks."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)[:64]
    return name if re.match(r"[A-Za-z_]", name) else f"column_{name}"[:64]


def _table(text: str, delimiter: str, found: Look) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    try:
        found.columns = next(reader, [])
        if len(set(found.columns)) != len(found.columns) or not all(found.columns):
            found.problems.append("The first line names the columns, each once.")
            return rows
        for number, cells in enumerate((cells for cells in reader if cells), 1):
            if len(cells) != len(found.columns):
                _note(
                    found,
                    f"Row {number} has {len(cells)} columns; the first line names {len(found.columns)}.",
                )
            else:
                rows.append(dict(zip(found.columns, cells, strict=True)))
    except csv.Error as error:
        _note(found, f"Line {reader.line_num} cannot be read: {error}.")
    return rows


def _objects(text: str, found: Look) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate((line for line in text.splitlines() if line.strip()), 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            _note(found, f"Row {number} is no JSON object.")
            continue
        if not found.columns:
            found.columns = [str(name) for name in value]
        if missing := [name for name in found.columns if name not in value]:
            _note(found, f"Row {number} has no {missing[0]}.")
            continue
        texts = {
            str(name): each if isinstance(each, str) else json.dumps(each) for name, each in value.items()
        }
        rows.append({name: texts[name] for name in found.columns})
    return rows


def _note(found: Look, problem: str) -> None:
    if len(found.problems) < _MOST_PROBLEMS:
        found.problems.append(problem)
