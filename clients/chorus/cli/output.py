"""Output for people and programs: tables, JSON, one-sentence errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from chorus.errors import ApiError, ChorusError, InvalidArgumentError
from chorus.types import ErrorDetail

PIPE_WIDTH = 240


def to_plain(value: Any) -> Any:
    """Models as JSON data; lists and objects are converted element by element."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: to_plain(element) for name, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(element) for element in value]
    return value


def print_json(value: Any, *, one_line: bool = False) -> None:
    """Print one JSON document on standard output."""
    click.echo(
        json.dumps(to_plain(value), indent=None if one_line else 2, ensure_ascii=not _speaks_unicode())
    )


def _speaks_unicode() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return encoding.lower().replace("-", "").startswith("utf")


def clean(text: str) -> str:
    """Text from the server without control characters, which could control a terminal."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text
    )


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "Nothing yet."
) -> None:
    """Print a table. Columns whose name begins with `#` are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name.removeprefix("#"), justify="right" if name.startswith("#") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    if table.row_count == 0:
        click.echo(empty)
        return
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    console.print(table)


def cell(value: object) -> str:
    """A value the way people write it."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}={cell(element)}" for name, element in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(element) for element in value) or "-"
    return clean(str(value))


def print_facts(facts: dict[str, object]) -> None:
    """Print names and values, one on each line."""
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {cell(value)}")


def sentence(error: ChorusError | ErrorDetail) -> str:
    """What went wrong, in one line: the code and the field if there are any, then the reason."""
    code = getattr(error, "code", None)
    field = getattr(error, "field", None)
    message = error.message if isinstance(error, (ApiError, ErrorDetail)) else str(error)
    where = f" in {field}" if field else ""
    head = (
        f"{code}{where}: "
        if code
        else f"invalid argument{where}: "
        if isinstance(error, InvalidArgumentError)
        else ""
    )
    request_id = (
        f" [{error.request_id}]" if isinstance(error, (ApiError, ErrorDetail)) and error.request_id else ""
    )
    return " ".join(clean(f"chorus: {head}{message}{request_id}").split())


def print_error(error: ChorusError | ErrorDetail, where: str = "") -> None:
    """Print one sentence on standard error."""
    click.echo(f"{sentence(error)}{where}", err=True)
