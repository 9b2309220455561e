"""What a job has answered so far, line after line in the order of its input, so that a later attempt goes on
after the last one.

Each attempt appends to a part of its own, whose name says at which line it begins. So a process that has lost
its lease and does not know it yet, and still writes, spoils nothing: what a part has beyond the beginning of
the next one does not count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Self

_NAME = re.compile(r"lines-(\d{12})-(\d{12})")
_LINE = re.compile(rb"([+-])(\d{1,15}) (\d{1,15}) ([^\x00\n]*)\n")
_PIECE_BYTES = 1 << 20


@dataclass(slots=True)
class LineCounts:
    """How many lines are answered, and what they took.

    Attributes:
        failed: those of `lines` whose answer is an error.
    """

    lines: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """One answered line.

    Attributes:
        text: JSON without a line break.
    """

    good: bool
    input_tokens: int
    output_tokens: int
    text: bytes

    def written(self) -> bytes:
        """As it stands in the file."""
        return b"%c%d %d %b\n" % (
            b"-+"[self.good],
            self.input_tokens,
            self.output_tokens,
            self.text,
        )


class LineLog:
    """The answered lines of one job, for one attempt, which closes it.

    Args:
        folder: of the job.
        token: of the attempt's lease.

    Raises:
        OSError: the disk failed; likewise from the methods.
    """

    def __init__(self, folder: Path, token: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.counts = LineCounts()
        for line in self._read(take_over=True):
            self._count(line)
        path = folder / f"lines-{self.counts.lines:012d}-{token:012d}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def append(self, lines: Iterable[LoggedLine]) -> None:
        """Keep answered lines: when this returns, they survive the end of the process."""
        content = bytearray()
        for line in lines:
            content += line.written()
            self._count(line)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def sync(self) -> None:
        """When this returns, what was appended survives a power cut."""
        os.fsync(self._file)

    def texts(self, good: bool) -> Iterator[bytes]:
        """The lines that were answered well, or badly, in pieces of about a megabyte."""
        piece = bytearray()
        for line in self._read():
            if line.good is good:
                piece += line.text
                piece += b"\n"
            if len(piece) >= _PIECE_BYTES:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)

    def _count(self, line: LoggedLine) -> None:
        counts = self.counts
        counts.lines += 1
        counts.failed += not line.good
        counts.input_tokens += line.input_tokens
        counts.output_tokens += line.output_tokens

    def _read(self, take_over: bool = False) -> Iterator[LoggedLine]:
        """Every line that counts.

        Args:
            take_over: whether nobody counts on them yet. What follows a part that lost lines in a power cut
                is removed then.
        """
        found = sorted((int(name[1]), int(name[2]), path) for path, name in self._parts())
        number = 0
        for (first, _, path), later in zip_longest(found, found[1:]):
            if first != number:
                if not take_over:
                    return
                path.unlink()
                continue
            with path.open("rb") as file:
                if take_over:
                    os.fsync(file.fileno())
                for line in file:
                    known = _LINE.fullmatch(line)
                    if known is None or (later is not None and number == later[0]):
                        break
                    yield LoggedLine(known[1] == b"+", int(known[2]), int(known[3]), known[4])
                    number += 1

    def _parts(self) -> Iterator[tuple[Path, re.Match[str]]]:
        for path in self._folder.iterdir():
            if name := _NAME.fullmatch(path.name):
                yield path, name
