"""As JSON, whatever is said, logged, warned of or printed is one object a line with the same keys."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from chorus_server.log import Log
from chorus_server.log_lines import FIELDS, MAX_CHARACTERS, Formatter, JsonFormatter, json_line
from tests.places import ROOT
from tether import tethered

HOSTILE = 'a "quoted" line\nand another \x00\x1b[31m \ud800 \u2028 end'
_CHILD = f"""
import logging, sys, warnings
from chorus_server.log import Log, process_log
Log.flush.__defaults__ = (300.0,)  # however long a busy machine takes for the last lines
hostile = {HOSTILE!r}
with process_log("chorus", "info", len(sys.argv) > 1) as log:
    log.say("two\\nlines")
    logging.getLogger("chorus.access").info(hostile, extra={{"request_id": "r", "status": 200, "secret": 1}})
    logging.getLogger("uvicorn.error").warning("of a library")
    print("printed")
    print("printed too", file=sys.stderr)
    warnings.warn("of something", stacklevel=1)
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("chorus").exception("went wrong")
"""
_MORE = {*FIELDS, "exception"}


def lines_of(*words: str) -> list[str]:
    command = tethered([sys.executable, "-c", _CHILD, *words])
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, check=True)
    return done.stderr.decode().split("\n")[:-1]


def test_everything_is_an_object_with_the_same_keys() -> None:
    """The control is the text, where a message or a traceback has several lines."""
    found = [json.loads(line) for line in lines_of("json")]
    by_logger = {line["logger"]: line for line in found}
    assert all(list(line)[:4] == ["time", "level", "logger", "message"] for line in found)
    assert all(set(list(line)[4:]) <= _MORE for line in found)
    assert by_logger["chorus.access"] | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "chorus.access",
        "message": HOSTILE,
        "request_id": "r",
        "status": 200,
    }
    assert by_logger["stdout"]["message"] == "printed" and by_logger["stderr"]["message"] == "printed too"
    assert "of something" in by_logger["py.warnings"]["message"]
    said, failed = (line for line in found if line["logger"] == "chorus")
    assert said["message"] == "two\nlines"
    assert (failed["level"], failed["message"]) == ("error", "went wrong")
    assert "ZeroDivisionError" in failed["exception"]
    assert len(found) == len(by_logger) + 1
    assert len(lines_of()) > len(found)


def test_lost_lines_are_told_as_an_object_too() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    log = Log(write_end, as_json=True)
    log.write("nobody reads this")
    assert log.flush(300) and log.lost == 1
    read_again, write_again = os.pipe()
    os.dup2(write_again, write_end)
    log.write("read")
    assert log.flush(300)
    with os.fdopen(read_again) as reader:
        messages = [json.loads(reader.readline())["message"] for _ in range(2)]
    assert messages == ["chorus: 1 lines of the log were lost here", "read"]


def test_a_long_message_is_cut_before_the_object_is_written() -> None:
    long = json.loads(json_line("info", "chorus", "\x00" * 3 * MAX_CHARACTERS))
    assert long["message"] == "\x00" * MAX_CHARACTERS


def test_the_time_is_utc() -> None:
    record = logging.LogRecord("chorus", logging.INFO, "", 0, "x", (), None)
    record.created = 1_800_000_000.25
    assert json.loads(JsonFormatter().format(record))["time"] == "2027-01-15T08:00:00.250Z"


CANARY = "a text of a client's"


def _logged(formatter: logging.Formatter, extra: dict[str, str]) -> str:
    try:
        try:
            {}[CANARY]
        except KeyError as error:
            raise ValueError(f"no number: {CANARY}") from error
    except ValueError as error:
        more = {"exc_info": (type(error), error, error.__traceback__)}
        return formatter.format(logging.makeLogRecord({"msg": "failed", **more, **extra}))


@pytest.mark.parametrize("formatter", [JsonFormatter(), Formatter("%(message)s")])
@pytest.mark.parametrize("whose", ["request_id", "tenant"])
def test_the_traceback_of_a_request_repeats_no_value(formatter: logging.Formatter, whose: str) -> None:
    told = _logged(formatter, {whose: "x"})
    assert CANARY not in told
    assert "ValueError" in told and "KeyError" in told and __file__ in told
    assert CANARY in _logged(formatter, {}), "the control: what fails at a start is told whole"
