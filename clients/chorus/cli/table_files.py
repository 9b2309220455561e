"""Rows of a CSV, TSV, JSON Lines or Parquet file, read and written a few at a time."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO

from chorus.errors import InvalidArgumentError
from chorus.strict_json import parse_strictly

Row = dict[str, Any]

_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_SEPARATORS = {"csv": ",", "tsv": "\t"}
_ROWS_AT_ONCE = 1_000
_MOST_FIELD_CHARACTERS = 1 << 26


def format_of(path: Path) -> str:
    """`csv`, `tsv`, `jsonl` or `parquet`, by the file's ending. Raises InvalidArgumentError."""
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        endings = ", ".join(_FORMATS)
        raise InvalidArgumentError(f"The ending of {str(path)!r} tells no format: name it {endings}.")
    return found


def parquet() -> Any:
    """The module that reads and writes Parquet. Raises InvalidArgumentError where it is not installed."""
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InvalidArgumentError(
            "Parquet files need pyarrow: install Chorus with the extra 'parquet', or give CSV or JSON Lines."
        ) from error


def columns_of(path: Path) -> list[str]:
    """The names of a file's columns; of JSON Lines, those that any row has, for which all are read."""
    kind = format_of(path)
    if kind == "parquet":
        return list(_opened_parquet(path).schema_arrow.names)
    return list(dict.fromkeys(chain.from_iterable(islice(rows_of(path), None if kind == "jsonl" else 1))))


def rows_of(path: Path) -> Iterator[Row]:
    """Each row as an object.

    Raises:
        InvalidArgumentError: the file cannot be read, or a row cannot; it says which.
    """
    kind = format_of(path)
    try:
        if kind == "parquet":
            yield from _parquet_rows(path)
            return
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _json_rows(path, file) if kind == "jsonl" else _separated_rows(path, file, kind)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgumentError(f"{str(path)!r} cannot be read: {reason}.", field="file") from error


def write_rows(file: BinaryIO, path: Path, rows: Iterator[Row], source: Path, added: Sequence[str]) -> int:
    """Write rows in the format of `path`, and return how many.

    Args:
        source: the file that they come from.
        added: columns that it does not have.
    """
    kind = format_of(path)
    if kind == "parquet":
        return _write_parquet(file, rows, source, added)
    counted = count(1)
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    try:
        if kind == "jsonl":
            for row, _ in zip(rows, counted, strict=False):
                text.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        else:
            names = [*columns_of(source), *added]
            writer = csv.DictWriter(text, names, extrasaction="ignore", delimiter=_SEPARATORS[kind])
            writer.writeheader()
            writer.writerows(row for row, _ in zip(rows, counted, strict=False))
        return next(counted) - 1
    finally:
        with suppress(OSError):  # raise the first error
            text.detach()


def check_formats(source: Path, target: Path) -> None:
    """Refuse what cannot be written. Raises InvalidArgumentError."""
    if "parquet" in (format_of(source), format_of(target)):
        parquet()
    if format_of(target) == "parquet" and format_of(source) == "jsonl":
        raise InvalidArgumentError("Rows of JSON Lines have no types for Parquet: write .jsonl or .csv.")


def _separated_rows(path: Path, file: io.TextIOWrapper, kind: str) -> Iterator[Row]:
    csv.field_size_limit(_MOST_FIELD_CHARACTERS)
    reader = csv.DictReader(file, delimiter=_SEPARATORS[kind], strict=kind == "csv")
    number = 0
    try:
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                names = len(reader.fieldnames or ())
                raise _bad(path, number, f"it does not have the {names} columns of the header")
            yield row
    except csv.Error as error:
        raise _bad(path, number + 1, str(error)) from error


def _json_rows(path: Path, file: io.TextIOWrapper) -> Iterator[Row]:
    number = 0
    for line in file:
        if not line.strip():
            continue
        number += 1
        try:
            row = parse_strictly(line)
        except (ValueError, RecursionError) as error:
            raise _bad(path, number, f"it is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise _bad(path, number, "it is not an object")
        yield row


def _opened_parquet(path: Path) -> Any:
    module = parquet()
    try:
        return module.ParquetFile(path)
    except Exception as error:  # pyarrow's errors have no common class
        raise InvalidArgumentError(f"{str(path)!r} is not a Parquet file.", field="file") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    for batch in _opened_parquet(path).iter_batches(batch_size=_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _write_parquet(file: BinaryIO, rows: Iterator[Row], source: Path, added: Sequence[str]) -> int:
    module, arrow = parquet(), importlib.import_module("pyarrow")
    if format_of(source) == "parquet":
        schema = _opened_parquet(source).schema_arrow
    else:
        schema = arrow.schema([(name, arrow.string()) for name in columns_of(source)])
    for name in added:
        kind = arrow.float64() if name.endswith("probability") else arrow.string()
        schema = schema.append(arrow.field(name, kind))
    written = 0
    with module.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(arrow.Table.from_pylist(some, schema=schema))
            written += len(some)
    return written


def _bad(path: Path, number: int, reason: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{str(path)!r}, row {number}: {reason}.", field="file")
