"""Options whose values are JSON or moments, and inputs from the command line."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from chorus.routes.inference import Input
from chorus.strict_json import parse_strictly


class JsonObject(click.ParamType[dict[str, Any]]):
    """A JSON object."""

    name = "JSON"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """The object."""
        if isinstance(value, dict):
            return value
        try:
            parsed = parse_strictly(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"{value!r} is not JSON: {error}", param, ctx)
        if not isinstance(parsed, dict):
            self.fail(f'{value!r} is not a JSON object such as {{"name": 1}}', param, ctx)
        return parsed


_DURATION = re.compile(r"([0-9]+)([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """A moment to come: a duration from now, a date, or a date with a time."""

    name = "DURATION|DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, with a time zone."""
        if isinstance(value, datetime):
            return value
        now = datetime.now(UTC)
        duration = _DURATION.fullmatch(value)
        try:
            if duration is not None:
                moment = now + timedelta(**{_UNITS[duration[2]]: int(duration[1])})
            else:
                moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            reason = "is later than any date" if duration is not None else "is neither a duration nor a date"
            self.fail(
                f"{value!r} {reason}: write 90d (m, h, d, w), 2030-01-31 or 2030-01-31T12:00Z.", param, ctx
            )
        if re.fullmatch(r"[0-9-]+", value):
            moment = moment.replace(tzinfo=UTC)
        if moment.utcoffset() is None:
            self.fail(f"{value!r} has no time zone: write {value}Z for UTC, or {value}+01:00.", param, ctx)
        if moment <= now:
            self.fail(f"{value!r} is not in the future.", param, ctx)
        return moment


def collect_inputs(texts: tuple[str, ...], fields: tuple[str, ...]) -> list[Input]:
    """The inputs that the caller gave: texts (`-` stands for the lines of standard input), or the fields of
    one input.

    Raises:
        UsageError: there are neither or both, or a field is not NAME=TEXT.
    """
    if fields:
        if texts:
            raise click.UsageError("Give either TEXT or --field, not both.")
        pairs = [field.split("=", 1) for field in fields]
        if not all(len(pair) == 2 and pair[0] for pair in pairs):
            raise click.UsageError("--field is NAME=TEXT, a field of the task's template.")
        return [{pair[0]: pair[1] for pair in pairs}]
    found: list[Input] = []
    for text in texts:
        if text == "-":
            lines = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
            found.extend(line.removeprefix("\ufeff") for line in lines)
        else:
            found.append(text)
    if not found:
        raise click.UsageError("There is no input: give TEXT, --field NAME=TEXT, or - to read lines.")
    return found
