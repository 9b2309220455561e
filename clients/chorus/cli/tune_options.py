"""Options of `chorus tune` and `chorus sweep` that become parts of a job document."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from chorus.cli.values import JsonObject
from chorus.routes.files import FILE_ID
from chorus.routes.tuning import Data
from chorus.strict_json import parse_strictly

_URL = re.compile(r"https?://")
SERVER_PATH = "server:"
SPLITS = ("train", "validation", "test")
_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--validation", metavar="DATA", help="Split that chooses the checkpoint. [default: cut from TRAIN]"
    ),
    click.option("--test", metavar="DATA", help="Split that is measured once, at the end."),
    click.option("--template", help='How columns become text, "{sentence}". [default: {text}]'),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="FIELD=COLUMN",
        help="Column of a template field, if their names differ; repeat.",
    ),
    click.option("--target", metavar="COLUMN", help="Column of the answer. [default: label]"),
    click.option(
        "--target-text",
        "target_texts",
        multiple=True,
        metavar="VALUE=ANSWER",
        help="What a value of --target means: 0=negative; repeat.",
    ),
    click.option(
        "--label", "labels", multiple=True, help="A label of a classification task; repeat, in order."
    ),
    click.option(
        "--metric",
        "metrics",
        multiple=True,
        help="Metric; the mean of all chooses the checkpoint; repeat. [default: accuracy; exact_match for "
        "free text]",
    ),
    click.option(
        "--metric-column",
        "metric_columns",
        multiple=True,
        metavar="NAME=COLUMN",
        help="Column that a metric needs beside the answer: group=question, label=correct; repeat.",
    ),
    click.option(
        "--answer-by",
        type=click.Choice(["ranked", "greedy"]),
        help="Measure the most probable label, or the text that the prompt writes. [default: ranked]",
    ),
    click.option(
        "--recipe",
        multiple=True,
        metavar="KNOB=VALUE",
        help="A knob, as in steps=1000; repeat. [default: the paper's]",
    ),
    click.option(
        "--format", type=click.Choice(["jsonl", "csv", "tsv", "parquet"]), help="[default: by ending]"
    ),
    click.option("--validation-rows", type=int, help="Rows to cut from TRAIN. [default: a tenth]"),
    click.option(
        "--validation-from",
        type=click.Choice(["train", "test"]),
        help="Cut the validation split from TRAIN, or choose on TEST, whose figures then flatter. [default: "
        "train]",
    ),
    click.option("--seed", type=int, help="Seed of everything random. [default: 0]"),
    click.option(
        "--seeds", type=int, help="Train with so many seeds; the best prompt becomes a version. [default: 1]"
    ),
    click.option("--initial-prompt", metavar="REFERENCE", help="Start from this prompt."),
    click.option("--promote", is_flag=True, default=None, help="Move @live to the new version."),
    click.option("--description", help="Description of the task."),
    click.option("--settings", type=JsonObject(), help="Default settings of generation."),
    click.option(
        "--document",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A whole job document in JSON; its data may name files beside it. Other options override it.",
    ),
)


def job_options(command: _Command) -> _Command:
    """Give a command the options of a job document that every job has."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def data_of(text: str, name: str, folder: Path = Path()) -> Data:
    """What a DATA argument means: the id of an uploaded file, a URL or path for the server, or a local file.

    Args:
        folder: to which the name of a local file is relative.

    Raises:
        UsageError: it names a local file that does not exist.
    """
    if FILE_ID.fullmatch(text):
        return text
    if _URL.match(text):
        return {"url": text}
    if text.startswith(SERVER_PATH):
        return {"path": text.removeprefix(SERVER_PATH)}
    path = folder / text
    if not path.is_file():
        raise click.UsageError(
            f"{name} {str(path)!r} is not a local file. Give a local file, the id of an uploaded one, a URL, "
            f"or {SERVER_PATH}PATH for a file that the server may read."
        )
    return path


def take_splits(document: dict[str, Any], folder: Path) -> dict[str, Data]:
    """Take out of a document's `data` the splits that it names by a text, as an argument would, and say what
    they mean. A local file is relative to the document's folder.

    Raises:
        UsageError: a text names a local file that does not exist.
    """
    data = document.get("data")
    if not isinstance(data, dict):
        return {}
    named = {split: data[split] for split in SPLITS if isinstance(data.get(split), str)}
    document["data"] = {name: value for name, value in data.items() if name not in named}
    return {split: data_of(text, f"data.{split}", folder) for split, text in named.items()}


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` options as an object.

    Raises:
        UsageError: an option has no `=` or no name, or a name comes twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} {value!r} must be NAME=VALUE.")
        if name in found:
            raise click.UsageError(f"{option} names {name!r} twice.")
        found[name] = rest
    return found


def json_pairs(values: Iterable[str], option: str) -> dict[str, Any]:
    """`NAME=VALUE` options as an object. A value that is JSON (`300`, `0.1`, `true`) is parsed; any other is
    a text."""
    found: dict[str, Any] = {}
    for name, text in pairs(values, option).items():
        try:
            found[name] = parse_strictly(text)
        except ValueError:
            found[name] = text
    return found


def document_of(path: Path) -> dict[str, Any]:
    """A job document from a file.

    Raises:
        UsageError: it cannot be read, or is not a JSON object.
    """
    try:
        document = parse_strictly(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise click.UsageError(f"{str(path)!r} is not JSON:  {error}.") from error
    if not isinstance(document, dict):
        raise click.UsageError(f"{str(path)!r} must contain a JSON object, the job document.")
    return document
