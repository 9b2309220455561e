"""Answered lines of a job: taken over after any end, one attempt after another, and never all in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus_server.jobs.line_log import LineLog, LoggedLine
from tests.memory import peak_bytes


def lines(*numbers: int) -> list[LoggedLine]:
    """Every third failed."""
    return [LoggedLine(n % 3 != 0, n, 2 * n, b'{"n":%d}' % n) for n in numbers]


def texts(log: LineLog, good: bool) -> list[int]:
    found = b"".join(log.texts(good)).splitlines()
    return [int(text.removeprefix(b'{"n":').removesuffix(b"}")) for text in found]


def test_an_attempt_goes_on_after_the_last_line_of_those_before(tmp_path: Path) -> None:
    with LineLog(tmp_path, 1) as log:
        log.append(lines(1, 2))
        log.append(lines(3))
    with LineLog(tmp_path, 2) as log:
        assert log.counts.lines == 3
    with LineLog(tmp_path, 3) as log:
        log.append(lines(4, 5, 6))
        log.sync()
        counts = log.counts
        assert (counts.lines, counts.failed, counts.input_tokens, counts.output_tokens) == (6, 2, 21, 42)
        assert texts(log, good=True) == [1, 2, 4, 5] and texts(log, good=False) == [3, 6]


@pytest.mark.parametrize("torn", [b"+", b"+1 2", b"+1 2 {", b'+1 2 {"n":9}', b"\0" * 50, b"\0\n+1 2 {}\n"])
def test_a_torn_end_does_not_count(tmp_path: Path, torn: bytes) -> None:
    with LineLog(tmp_path, 1) as log:
        log.append(lines(1, 2))
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes() + torn)
    with LineLog(tmp_path, 2) as log:
        assert log.counts.lines == 2
        log.append(lines(4))
        assert texts(log, good=True) == [1, 2, 4]


def test_a_late_writer_spoils_nothing(tmp_path: Path) -> None:
    """It has lost its lease and does not know it yet."""
    with LineLog(tmp_path, 1) as late:
        late.append(lines(1, 2))
        with LineLog(tmp_path, 2) as log:
            late.append(lines(7, 8, 10))
            log.append(lines(4))
            assert texts(log, good=True) == [1, 2, 4] and log.counts.lines == 3
        with LineLog(tmp_path, 3) as log:
            assert log.counts.lines == 3 and texts(log, good=True) == [1, 2, 4]


def test_what_follows_lost_lines_is_lost_too(tmp_path: Path) -> None:
    """A power cut took the end of a part that was not synced, though the next one begins after it."""
    with LineLog(tmp_path, 1) as log:
        log.append(lines(1, 2, 4))
    with LineLog(tmp_path, 2) as log:
        log.append(lines(5, 7))
    first, _ = sorted(tmp_path.iterdir())
    first.write_bytes(first.read_bytes()[:-4])
    with LineLog(tmp_path, 3) as log:
        assert log.counts.lines == 2
        log.append(lines(4))
        assert texts(log, good=True) == [1, 2, 4]


def test_lines_are_read_a_megabyte_at_a_time(tmp_path: Path) -> None:
    line, count = LoggedLine(True, 1, 1, b'"%b"' % (b"x" * 10_000)), 2_000
    with LineLog(tmp_path, 1) as log:
        for _ in range(count):
            log.append([line])
        assert peak_bytes(lambda: sum(map(len, log.texts(True)))) < 4 << 20
        assert peak_bytes(lambda: len(b"".join(log.texts(True)))) > 16 << 20, "the control"
        assert len(next(log.texts(True))) < 2 << 20
