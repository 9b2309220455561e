"""Finds and reads the files of a dataset as they are published: in a folder, or in a zip."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from chorus.errors import InvalidArgumentError
from chorus.strict_json import parse_strictly

Place = Path | zipfile.Path
_MOST_FIELD_CHARACTERS = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OfficialFile:
    """One file. Rows are numbered from 1, without a header.

    Attributes:
        warn: gets what is odd but allowed.
    """

    place: Place
    warn: list[str]

    @property
    def name(self) -> str:
        """Its name without folder and without `.gz`."""
        return self.place.name.removesuffix(".gz")

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects of a JSON Lines file.

        Raises:
            InvalidArgumentError: a line is not a JSON object in UTF-8.
        """
        with self._text() as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = parse_strictly(line)
                except (ValueError, RecursionError) as error:
                    self.refuse(f"it is not JSON: {str(error)[:120]}", number)
                if not isinstance(row, dict):
                    self.refuse("it is not an object", number)
                yield number, row

    def table(
        self, columns: Sequence[str], names: Sequence[str] = ()
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """These columns of a TSV file in which quotation marks mean nothing. Incomplete rows are left out.

        Args:
            names: of all columns, if the file has no header.

        Raises:
            InvalidArgumentError: the header lacks a column.
        """
        csv.field_size_limit(_MOST_FIELD_CHARACTERS)
        incomplete = 0
        with self._text() as file:
            reader = csv.DictReader(file, names or None, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                found = ", ".join(repr(name[:40]) for name in list(reader.fieldnames or ())[:12]) or "nothing"
                self.refuse(f"its header has no column {missing[0]!r}; it has {found}")
            try:
                for number, row in enumerate(reader, 1):
                    values = {name: row[name] for name in columns}
                    if None not in values.values():
                        yield number, values
                    else:
                        incomplete += 1
            except csv.Error as error:
                self.refuse(str(error))
        if incomplete:
            self.warn.append(f"{self.place.name}: {incomplete} incomplete rows were left out, as T5 does")

    def document(self) -> Any:
        """The whole file as JSON."""
        with self._text() as file:
            try:
                return json.load(file)
            except (ValueError, RecursionError) as error:
                self.refuse(f"it is not JSON: {str(error)[:120]}")

    def latin_lines(self) -> Iterator[tuple[int, str]]:
        """The lines of a text in ISO 8859-1 that are not blank."""
        with self._text("latin-1") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")

    def refuse(self, reason: str, row: int | None = None) -> NoReturn:
        """Raise InvalidArgumentError about the file, or about one of its rows."""
        where = str(self.place) if row is None else f"{self.place}, row {row}"
        raise InvalidArgumentError(f"{where}: {reason}.", field="source")

    def value(self, row: Mapping[str, Any], name: str, number: int, kind: Any = str) -> Any:
        """A field of a row, which must be there and of this kind."""
        if name not in row:
            found = ", ".join(repr(key[:40]) for key in list(row)[:12]) or "nothing"
            hint = " (official test sets have no labels)" if name == "label" else ""
            self.refuse(f"there is no {name!r}{hint}; the row has {found}", number)
        found_value = row[name]
        if not isinstance(found_value, kind):
            self.refuse(f"{name!r} is {type(found_value).__name__}, which is not what the format has", number)
        return found_value

    @contextmanager
    def _text(self, encoding: str = "utf-8-sig") -> Iterator[io.TextIOWrapper]:
        try:
            with self.place.open("rb") as opened:
                raw: BinaryIO = opened  # type: ignore[assignment]
                plain = gzip.GzipFile(fileobj=raw) if self.place.name.endswith(".gz") else raw
                with io.TextIOWrapper(plain, encoding=encoding) as file:
                    yield file
        except UnicodeDecodeError:
            self.refuse("it is not UTF-8")
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            self.refuse(f"it cannot be read: {getattr(error, 'strerror', None) or error}")


def root_of(source: Path, folder: str, official: str) -> Place:
    """Where a dataset's files are: the folder itself or the one around it, or a zip of either.

    Raises:
        InvalidArgumentError: there is neither a folder nor a zip.
    """
    if source.is_dir():
        place: Place = source
    elif zipfile.is_zipfile(source):
        place = zipfile.Path(source)
    else:
        what = "is not a zip file" if source.is_file() else "is not there"
        raise InvalidArgumentError(
            f"{str(source)!r} {what}: name the folder or the zip with the official files, from {official}",
            field="source",
        )
    inner = place / folder
    return inner if folder and inner.is_dir() else place


def find(root: Place, names: Sequence[str], folder: str, official: str) -> Place:
    """The first of these files that is there.

    Raises:
        InvalidArgumentError: none is.
    """
    for name in names:
        if (place := root / name).is_file():
            return place
    here = ", ".join(sorted(each.name for each in root.iterdir())[:10]) or "nothing"
    within = f" (or in a folder {folder} there)" if folder else ""
    raise InvalidArgumentError(
        f"{str(root)!r} has no {' or '.join(names)}{within}; it has {here}. The official files are at "
        f"{official}",
        field="source",
    )
