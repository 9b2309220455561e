"""A log that nobody reads, that cannot be written or whose reader stalls costs lines and nothing else."""

from __future__ import annotations

import fcntl
import io
import os
import re
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pytest

from chorus_server.log import _MAX_LINES, Log
from tests.places import ROOT
from tether import tethered

LINES = 3000
PIPE_BYTES = 65_536
WORDS = "of a log that is longer than the pipe to its reader, which holds sixty-four kibibytes"

_OURS = """
import sys
from chorus_server.log import Log, process_log as process_log
if "patient" in sys.argv:  # its end waits for its last lines, however long a busy machine takes for them
    Log.flush.__defaults__ = (300.0,)
"""
_PLAIN = """
import contextlib, sys
@contextlib.contextmanager
def process_log(name, level):
    logging.raiseExceptions = False
    logging.basicConfig(stream=sys.stderr, level=level.upper())
    class Log:
        def say(self, line):
            print(line, file=sys.stderr, flush=True)
    yield Log()
"""
_CHILD = f"""
import logging, os, sys, warnings
done = int(sys.argv[1])
with process_log("chorus", "info") as log:
    os.write(done, b"begun\\n")
    sys.stdin.readline()
    for number in range({LINES}):
        logging.getLogger("chorus").info("line %d {WORDS}", number)
    log.say("said")
    print("printed")
    print("printed too", file=sys.stderr, flush=True)
    if "native" in sys.argv:
        for number in range({LINES}):
            try:
                os.write(2, b"as native code writes: {WORDS}\\n")
            except OSError:
                pass
    os.write(done, b"done\\n")
    sys.stdin.readline()
    log.say("the last line")
os.write(done, b"left\\n")
"""


class Child:
    """A process that logs more than a pipe holds.

    Args:
        log: its standard error.
    """

    def __init__(self, kind: str, log: IO[bytes], *words: str) -> None:
        done, write_end = os.pipe()
        self._done = os.fdopen(done)
        code = "import logging\n" + {"ours": _OURS, "plain": _PLAIN}[kind] + _CHILD
        self._process = subprocess.Popen(
            tethered([sys.executable, "-c", code, write_end, *words]),
            cwd=ROOT,
            pass_fds=[write_end],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
        )
        os.close(write_end)
        self.expect("begun")

    def expect(self, word: str) -> None:
        assert self._done.readline() == word + "\n"

    def has_spoken(self) -> bool:
        """Whether a word waits to be read."""
        return bool(select.select([self._done], [], [], 0)[0])

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> int:
        """The exit code."""
        with self._process, self._done:
            return self._process.wait(300)

    def kill(self) -> None:
        self._process.kill()
        self.end()


@contextmanager
def pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Both ends."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", 0) as reader, os.fdopen(write_end, "wb", 0) as writer:
        yield reader, writer


def waiting_bytes(reader: IO[bytes]) -> int:
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("native", [(), ("native",)], ids=["python", "native"])
def test_a_reader_that_stalls_stalls_nobody(native: tuple[str, ...]) -> None:
    with pipe() as (reader, writer):
        child = Child("ours", writer, *native)
        child.go_on()
        child.expect("done")  # while nobody reads
        pause = threading.Event()
        while waiting_bytes(reader) < PIPE_BYTES // 4:  # filled as far as whole writes fit
            pause.wait(0.01)
        child.go_on()
        child.expect("left")
        assert child.end() == 0


def test_the_plain_way_waits_for_a_reader_that_stalls() -> None:
    """The control."""
    with pipe() as (reader, writer):
        child = Child("plain", writer)
        child.go_on()
        pause = threading.Event()
        while waiting_bytes(reader) < PIPE_BYTES - 4096:  # it cannot be done before somebody reads
            pause.wait(0.01)
        assert not child.has_spoken()
        writer.close()
        threading.Thread(target=reader.read, daemon=True).start()
        child.expect("done")
        child.kill()


def test_a_reader_that_comes_back_is_told_how_much_it_missed() -> None:
    with pipe() as (reader, writer):
        child = Child("ours", writer, "patient")
        writer.close()
        child.go_on()
        child.expect("done")
        content = b""
        while not content.endswith(b"printed too\n"):
            content += reader.read(PIPE_BYTES)
        child.go_on()  # an end waits half a second for its last lines, which is too short for thousands
        content += reader.read()
        child.expect("left")
        assert child.end() == 0
    lines = content.decode().splitlines()
    assert lines[0].endswith(f"line 0 {WORDS}") and lines[-1].endswith("the last line")
    assert len(lines) == LINES + 4  # all of them wait in the queue meanwhile
    for words in ("] said", "printed", "printed too"):
        assert any(line.endswith(words) for line in lines[-4:]), lines[-4:]


@contextmanager
def unread_pipe() -> Iterator[IO[bytes]]:
    """The writing end of a pipe without a reader."""
    with pipe() as (reader, writer):
        reader.close()
        yield writer


@contextmanager
def full_disk() -> Iterator[IO[bytes]]:
    with Path("/dev/full").open("wb") as full:
        yield full


@pytest.mark.parametrize("log", [unread_pipe, full_disk], ids=["no reader", "full disk"])
@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_a_log_that_cannot_be_written_ends_nobody(kind: str, log: Callable[[], Any]) -> None:
    with log() as written:
        child = Child(kind, written)
        child.go_on()
        if kind == "plain":  # the control: what is said ends the process
            assert child.end() == 1
            return
        child.expect("done")
        child.go_on()
        child.expect("left")
        assert child.end() == 0


def test_lines_beyond_the_queue_are_counted_and_told() -> None:
    with pipe() as (reader, writer):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(writer.fileno(), False)
        log = Log(writer.fileno())
        for number in range(3 * _MAX_LINES):
            log.write(f"line {number} {WORDS}")
        assert not log.flush(0.01)
        lost = log.lost
        assert _MAX_LINES < lost < 3 * _MAX_LINES
        with io.BufferedReader(cast(io.FileIO, reader)) as buffered:
            told = number = 0
            while number < 3 * _MAX_LINES - lost or told < lost:  # told in parts, if the thread came late
                if found := re.fullmatch(
                    rb"chorus: (\d+) lines of the log were lost here\n", buffered.readline()
                ):
                    told += int(found[1])
                else:
                    number += 1
                if number == 3 * _MAX_LINES - lost and told < lost:
                    assert log.flush(300)
                    log.write("after")  # a loss is told before the next line
            assert told == lost
        assert log.flush(300) and log.lost == lost


def test_a_closed_descriptor_is_not_given_to_a_file(tmp_path: Path) -> None:
    """The control is Python itself, which opens the next file there, for the log to be written into."""
    code = "import sys\n{}\nwith open(sys.argv[1], 'w') as file: print(file.fileno())"
    ours = code.format(
        "from chorus_server.log import process_log\nlog = process_log('x', 'info')\nlog.__enter__()"
    )
    numbers = []
    for text in (ours, code.format("")):
        done = subprocess.run(
            ["sh", "-c", '"$0" -c "$1" "$2" 2>&-', sys.executable, text, tmp_path / "file"],
            cwd=ROOT, stdout=subprocess.PIPE,
        )  # fmt: skip
        numbers.append(done.stdout)
    assert numbers[1] == b"2\n" and numbers[0] == b""  # what is printed goes to the log, which is nowhere
