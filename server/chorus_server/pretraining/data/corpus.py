"""Plain text to learn from: one paragraph on each line, a blank line between books, `.gz` or not.

In a corpus without any blank line, each line counts as a book.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from chorus_server.errors import InvalidInputError
from chorus_server.pretraining.data.randomness import permutation

MAX_CORPUS_LINE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Corpus:
    """Files of text, read in the given order.

    Attributes:
        paths: at least one.
    """

    paths: tuple[Path, ...]

    def books(self) -> Iterator[list[str]]:
        """Each book as its paragraphs, without empty ones. A few MiB are in memory at a time.

        Raises:
            InvalidInputError: a file is missing, empty, or not UTF-8.
        """
        together = self.counts[1] > 0
        for path in self.paths:
            book: list[str] = []
            for line in _lines(path):
                if line:
                    book.append(line)
                if book and not (line and together):
                    yield book
                    book = []
            if book:
                yield book

    @cached_property
    def counts(self) -> tuple[int, int]:
        """(number of paragraphs, number of blank lines)."""
        paragraphs = blank = 0
        for path in self.paths:
            for line in _lines(path):
                paragraphs, blank = paragraphs + bool(line), blank + (not line)
        if paragraphs == 0:
            raise _refused(f"{_names(self.paths)} has no text")
        return paragraphs, blank

    def held_out(self, seed: int, share: float) -> frozenset[int]:
        """Numbers of the books that are kept out of training: a share of them, at least one.

        Raises:
            InvalidInputError: there are fewer than two books.
        """
        count = sum(1 for _ in self.books())
        if count < 2:
            raise _refused(
                f"{_names(self.paths)} is one book, but a whole book is held out to measure on; put a blank "
                "line between books, or give a second file"
            )
        wanted = min(max(1, round(count * share)), count - 1)
        return frozenset(int(n) for n in permutation(count, "held out", seed)[:wanted])

    def facts(self) -> list[dict[str, str | int]]:
        """Name, size and SHA-256 of each file, for the model card."""
        return [_facts(path) for path in self.paths]


def open_corpus(paths: Sequence[Path]) -> Corpus:
    """A corpus of these files. Raises InvalidInputError if one is missing."""
    if not paths:
        raise _refused("give at least one text file with --corpus")
    for path in paths:
        if not path.is_file():
            raise _refused(f"there is no file {path}")
    return Corpus(tuple(paths))


def _lines(path: Path) -> Iterator[str]:
    """Lines without surrounding space; runs of spaces inside become one."""
    number = 0
    try:
        with _open(path) as file:
            while raw := file.readline(MAX_CORPUS_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_CORPUS_LINE_BYTES:
                    raise _refused(f"{path.name}, line {number} is longer than {MAX_CORPUS_LINE_BYTES} bytes")
                yield " ".join(raw.decode("utf-8-sig" if number == 1 else "utf-8").split())
    except UnicodeDecodeError as error:
        raise _refused(f"{path.name}, line {number} is not UTF-8 (byte {error.start} of the line)") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _refused(f"{path.name} cannot be read: {error}") from error


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb"))


def _facts(path: Path) -> dict[str, str | int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": digest}


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _refused(message: str) -> InvalidInputError:
    return InvalidInputError(message, field="corpus")
