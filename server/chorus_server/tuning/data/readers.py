"""Reads JSONL, CSV, TSV and Parquet files row by row, within bounds; errors name the row at fault.

No more of a line is read than the bound allows, so a file that is one line of 2 GB costs one buffer. TSV has
no quoting, as in GLUE's files; CSV is quoted as in RFC 4180. Lines end with LF or CRLF, or with CR in a file
without LF. Rows are numbered from 1, and a header is not a row.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, get_args

from chorus_server.errors import InvalidInputError
from chorus_server.strict_json import parse_strictly
from chorus_server.tuning.data.conversations import ConversationError, earlier_targets, with_columns
from chorus_server.tuning.data.parquet import TooLargeToUnpackError, parquet_rows
from chorus_server.tuning.document.data import Format
from prompts_store.text import shown

DATA_FORMATS: tuple[Format, ...] = get_args(Format)
Record = tuple[int, dict[str, Any]]
"""(number of the row, value by column)."""

# By default the csv module refuses cells above 131,072 characters; here the bound is on rows.
csv.field_size_limit(2**31 - 1)

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is read.

    Attributes:
        format: None to go by the file's ending.
        column_names: of a CSV or TSV file without a header; None to take the first row.
        max_row_bytes: longest row.
        max_rows: most rows.
        max_bytes: most bytes of all rows together in memory: a Parquet file unpacks to more than it has on
            disk, and a file named by its path may be of any size.
        name: the file's name in errors, whose ending tells the format; None for the path's own.
    """

    format: Format | None = None
    column_names: tuple[str, ...] | None = None
    max_row_bytes: int = 1024 * 1024
    max_rows: int = 10_000_000
    max_bytes: int = 1024 * 1024 * 1024
    name: str | None = None


def read_rows(
    path: Path,
    options: ReadOptions | None = None,
    *,
    field: str = "data",
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[Record]:
    """The rows of a file. Those of messages, or of a prompt and completion, get columns, see
    `conversations`.

    Args:
        field: the document's field for the file, such as `data.train`, for errors.
        warn: called once for each kind of thing that was left out.

    Raises:
        InvalidInputError: `invalid_data`, with the row: no such file, unknown ending, not UTF-8, a row too
            long or malformed, a header that names a column twice, messages that cannot be learned, or Parquet
            without the `parquet` extra.
    """
    options = options or ReadOptions()
    source = _Source(path, options, field, warn)
    readers: dict[Format, Callable[[_Source], Iterator[Record]]] = {
        "jsonl": _jsonl, "csv": _delimited, "tsv": _delimited, "parquet": _parquet,
    }  # fmt: skip
    several = first = 0
    for count, (row, record) in enumerate(readers[source.format](source), start=1):
        if count > options.max_rows:
            source.refuse(f"has more than {options.max_rows} rows")
        try:
            yield row, with_columns(record)
        except ConversationError as error:
            source.refuse(str(error), row)
        if earlier_targets(record):
            several, first = several + 1, first or row
    if several:
        warn(
            f"{source.name}: {several} rows have several messages of the assistant (the first is row "
            f"{first}): only the last of a row is learned, those before it are its history, as if they had a "
            "weight of 0"
        )


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, for a prompt's lineage."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Source:
    """One file, with its bounds and its errors."""

    def __init__(self, path: Path, options: ReadOptions, field: str, warn: Callable[[str], None]) -> None:
        self.path, self.options, self.field, self.warn = path, options, field, warn
        self.name = options.name or path.name
        self.format: Format = options.format or self._by_ending()
        self._taken = 0
        self._begun = False

    def refuse(self, message: str, row: int | None = None) -> NoReturn:
        where = "" if row is None else f", row {row}"
        raise InvalidInputError(f"{self.name}{where}: {message}", field=self.field, code="invalid_data")

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            self.refuse(f"cannot be read: {error.strerror or error}")

    def open_lines(self) -> BinaryIO:
        """The file, for `line`; in one without LF, each CR ends a line."""
        file = self.open()
        start = file.read(self.options.max_row_bytes + 1)
        file.seek(0)
        lone = b"\n" not in start and b"\r" in start
        return io.BufferedReader(_CarriageReturns(file)) if lone else file

    def take(self, count: int, row: int) -> None:
        """Count bytes that are kept; refuse the file when there are too many."""
        self._taken += count
        if self._taken > self.options.max_bytes:
            self.refuse(
                f"up to here the rows have more than {self.options.max_bytes} bytes, the most that is read "
                "(tuning_max_file_bytes); give fewer rows, or fewer columns",
                row,
            )

    def line(self, file: BinaryIO, row: int, allowed: int) -> str | None:
        """The next line as text; None at the end of the file."""
        raw = file.readline(allowed + 1)
        if len(raw) > allowed:
            self.refuse(f"is longer than {self.options.max_row_bytes} bytes", row)
        self.take(len(raw), row)
        first, self._begun = not self._begun, True
        try:
            text = raw.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError as error:
            self.refuse(f"is not UTF-8 (byte {error.start} of the line); save the file as UTF-8", row)
        return text if raw else None

    def _by_ending(self) -> Format:
        found = _SUFFIXES.get(Path(self.name).suffix.lower())
        if found is None:
            self.refuse(f"has an unknown ending; name the format, one of {', '.join(DATA_FORMATS)}")
        return found


def _jsonl(source: _Source) -> Iterator[Record]:
    row = 0
    with source.open_lines() as file:
        while (line := source.line(file, row + 1, source.options.max_row_bytes)) is not None:
            row += 1
            if not line.strip():
                continue
            try:
                value = parse_strictly(line)
            except (ValueError, RecursionError) as error:
                source.refuse(f"is not a JSON object: {str(error)[:120]}", row)
            if not isinstance(value, dict):
                source.refuse("is not a JSON object; write one object a line", row)
            yield row, value


def _delimited(source: _Source) -> Iterator[Record]:
    with source.open_lines() as file:
        lines = _Lines(source, file)
        rows = _tsv(lines) if source.format == "tsv" else _csv(source, lines)
        names = source.options.column_names or _header(source, rows)
        unnamed = [place for place, name in enumerate(names) if not name.strip()]
        if unnamed:
            places = ", ".join(str(place + 1) for place in unnamed[:10])
            source.warn(f"{source.name}: columns without a name are left out (number {places})")
        for values in rows:
            lines.row += 1
            if len(values) != len(names):
                values = _fitted(source, values, len(names), lines.row)
            pairs = zip(names, values, strict=True)
            yield lines.row, {name: value for name, value in pairs if name.strip()}


def _fitted(source: _Source, values: list[str], width: int, row: int) -> list[str]:
    """A row without the empty cells that spreadsheets write after the last column."""
    if len(values) < width or any(values[width:]):
        source.refuse(f"has {len(values)} columns; the header names {width}", row)
    return values[:width]


class _CarriageReturns(io.RawIOBase):
    """Reads a file whose lines end with CR as if they ended with LF."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Lines:
    """Lines of a file; one CSV row with quoted cells may take several. `row` counts finished rows."""

    def __init__(self, source: _Source, file: BinaryIO) -> None:
        self._source, self._file = source, file
        self.row = 0
        self.taken = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._source.line(self._file, self.row + 1, self._source.options.max_row_bytes - self.taken)
        if line is None:
            raise StopIteration
        self.taken += len(line.encode())
        return line


def _tsv(lines: _Lines) -> Iterator[list[str]]:
    """The cells of each line that is not empty; a CR inside a line is an ordinary character."""
    for line in lines:
        lines.taken = 0
        text = line.removesuffix("\n").removesuffix("\r")
        if text:
            yield text.split("\t")


_CSV_FAULTS = {
    "unexpected end of data": "has a quoted cell that never ends; close its quote",
    "expected after": "has text after a closing quote; write a quote inside a quoted cell twice",
    "new-line character": "has a carriage return outside quotes; quote the cell, or end all lines alike",
}
"""Our wording of the csv module's errors, by a part of theirs."""


def _csv(source: _Source, lines: _Lines) -> Iterator[list[str]]:
    """The cells of each row that is not empty."""
    reader = csv.reader(lines, strict=True)
    while True:
        lines.taken = 0
        try:
            values = next(reader, None)
        except csv.Error as error:
            found = (ours for theirs, ours in _CSV_FAULTS.items() if theirs in str(error))
            source.refuse(next(found, "is not valid CSV"), lines.row + 1)
        if values is None:
            return
        if values:
            yield values


def _header(source: _Source, rows: Iterator[list[str]]) -> tuple[str, ...]:
    """The first row that is not blank."""
    names = next((values for values in rows if any(value.strip() for value in values)), None)
    if names is None:
        source.refuse("is empty; the first line names the columns")
    for place, name in enumerate(names):
        if name.strip() and name in names[:place]:
            source.refuse(f"names the column {shown(name)} twice in its header")
    return tuple(names)


def _parquet(source: _Source) -> Iterator[Record]:
    row = 0
    with source.open() as file:
        try:
            for record, size in parquet_rows(file, source.options.max_row_bytes, source.options.max_bytes):
                row += 1
                source.take(size, row)
                yield row, record
        except ImportError:
            source.refuse(
                "is Parquet, which the server reads with pyarrow: pip install pyarrow, or send JSONL"
            )
        except InvalidInputError:
            raise
        except TooLargeToUnpackError as error:
            source.refuse(str(error), error.rows + 1)
        except Exception as error:  # pyarrow's errors have no common class
            source.refuse(f"is not a readable Parquet file: {ascii(str(error))[1:-1][:120]}", row + 1)
