"""What is in a file of training data, as somebody wants to see it before anything is queued."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException

from chorus_console.rows import MOST_COLUMNS, filled_lines, texts_of

MOST_LABELS = 20
_SHOWN = 5
_MOST_PROBLEMS = 20
_LONGEST_NAME = 64
_LONGEST_LABEL = 200
_MOST_SAMPLE = 32_000
"""Characters of the first rows' values, which the page sends back for each preview."""
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

    @property
    def sample(self) -> list[Row]:
        """The first rows, with long values cut off."""
        most = _MOST_SAMPLE // max(1, len(self.first) * len(self.columns))
        return [{name: value[:most] for name, value in row.items()} for row in self.first]


@dataclass(frozen=True, slots=True)
class Like:
    """What a file must have because another one has it.

    Attributes:
        columns: these, and maybe others.
        target: the column of the answers.
        labels: what an answer may be; empty for any.
    """

    columns: tuple[str, ...]
    target: str
    labels: frozenset[str]


def look(content: bytes, name: str, *, answered: bool = True, like: Like | None = None) -> Look:
    """Read a whole file, a row at a time.

    Args:
        answered: whether its rows have an answer beside an input.
        like: what another file has.

    Raises:
        HTTPException: 400, it is no table at all, or has more columns than a page can show.
    """
    found = Look()
    rows = rows_of(content, name, found)
    counts: Counter[str] = Counter()
    empty = 0
    for row in rows:
        found.rows += 1
        if found.rows <= _SHOWN:
            found.first.append(row)
        if like is not None and (problem := _unlike(row, like)):
            _note(found, f"Row {found.rows}: {problem}")
            continue
        answer = row[_target(found.columns) if like is None else like.target]
        if not answer and not empty:
            empty = found.rows
        if len(counts) <= MOST_LABELS or answer in counts:
            counts[answer] += 1
    if not found.rows and not found.problems:
        found.problems.append("The file has no rows.")
    if answered and found.rows and len(found.columns) < 2:
        found.problems.append("There is one column; an input and an answer are two.")
    if found.problems:
        return found
    if not answered:
        return found
    found.target = _target(found.columns) if like is None else like.target
    if empty:
        found.problems.append(f"Row {empty}: {found.target} is empty.")
    if 2 <= len(counts) <= MOST_LABELS and max(map(len, counts)) <= _LONGEST_LABEL:
        found.answers = sorted(counts)
    others = [field_name(column) for column in found.columns if column != found.target]
    one = len(others) == 1
    found.template = f"{{{others[0]}}}" if one else " ".join(f"{name}: {{{name}}}" for name in others)
    return found


def _unlike(row: Row, like: Like) -> str:
    """What a row lacks that those of another file have; empty if nothing."""
    if missing := [column for column in like.columns if column not in row]:
        return f"there is no column {missing[0]}, which the training file has."
    answer = row[like.target]
    return (
        ""
        if not like.labels or answer in like.labels or not answer
        else (f"the answer {answer[:_LONGEST_LABEL]!r} is not among the labels.")
    )


def rows_of(content: bytes, name: str, found: Look) -> Iterator[Row]:
    """The rows of a file, one at a time.

    Args:
        name: the file's, whose ending tells what it is.
        found: gets its columns and what is wrong with it.

    Raises:
        HTTPException: 400, it is no table at all.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise HTTPException(400, f"The file is not UTF-8: line {line}.") from None
    ending = name.lower().rpartition(".")[2]
    if ending in ("jsonl", "ndjson"):
        return _objects(text, found)
    if ending in ("csv", "tsv"):
        return _table(text, "," if ending == "csv" else "\t", found)
    raise HTTPException(400, "The name of the file ends in .csv, .tsv or .jsonl.")


def _target(columns: list[str]) -> str:
    return next((each for each in _TARGETS if each in columns), columns[-1])


def field_name(column: str) -> str:
    """A field of a template for a column, whose name may have blanks."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)[:64]
    return name if re.match(r"[A-Za-z_]", name) else f"column_{name}"[:64]


def _table(text: str, delimiter: str, found: Look) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        found.columns = _columns(next(reader, []))
        if len(set(found.columns)) != len(found.columns) or not all(found.columns):
            found.problems.append("The first line names the columns, each once.")
            return
        for number, cells in enumerate((cells for cells in reader if cells), 1):
            if len(cells) == len(found.columns):
                yield dict(zip(found.columns, cells, strict=True))
            else:
                _note(
                    found,
                    f"Row {number} has {len(cells)} columns; the first line names {len(found.columns)}.",
                )
    except csv.Error as error:
        _note(found, f"Line {reader.line_num} cannot be read: {error}.")


def _objects(text: str, found: Look) -> Iterator[Row]:
    for number, line in enumerate(filled_lines(text), 1):
        texts = texts_of(line)
        if not texts:
            _note(found, f"Row {number} is no JSON object with fields.")
            continue
        if not found.columns:
            found.columns = _columns(list(texts))
        if missing := [name for name in found.columns if name not in texts]:
            _note(found, f"Row {number} has no {missing[0]}.")
            continue
        yield {name: texts[name] for name in found.columns}


def _columns(names: list[str]) -> list[str]:
    if len(names) > MOST_COLUMNS:
        raise HTTPException(400, f"The file has {len(names):,} columns; up to {MOST_COLUMNS} can be shown.")
    if any(len(name) > _LONGEST_NAME for name in names):
        raise HTTPException(400, f"The names of columns have up to {_LONGEST_NAME} characters.")
    return names


def _note(found: Look, problem: str) -> None:
    if len(found.problems) < _MOST_PROBLEMS:
        found.problems.append(problem)
