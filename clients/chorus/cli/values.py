"""Options whose values are JSON, and inputs from the command line."""

from __future__ import annotations

import sys
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
