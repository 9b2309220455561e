"""`chorus models`: look at base models, convert them, make random ones.

JAX, Orbax and the readers are imported when a command runs, because `chorus --help` loads this file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chorus_server.model.command import DTYPES, Command, Spelled, stated
from chorus_server.model.config import T5Config, named_config
from chorus_server.model.parameters import parameter_count, prompt_table

if TYPE_CHECKING:
    from chorus_server.model.checkpoints.opening import OpenOptions
    from chorus_server.model.checkpoints.reader import CheckpointReader
    from chorus_server.model.checkpoints.tensors import TensorProgress as Report

SIZES = ("tiny", "small", "base", "large", "xl", "xxl")
CHECKPOINT_FORMATS = ("orbax", "hf", "t5x")


def source_options(command: Command) -> Command:
    """Options for facts that a checkpoint may not give."""
    for option in (
        click.option(
            "--activation",
            type=click.Choice(("gelu", "relu")),
            help="T5X only: feed-forward activation. Default: gelu if gated (T5 1.1, mT5), else relu.",
        ),
        click.option(
            "--relative-max-distance",
            type=click.IntRange(min=2),
            help="T5X only: distance from which relative positions share a bucket. Default: 128.",
        ),
        click.option(
            "--vocab-size",
            type=click.IntRange(min=1),
            help="Number of ids without the embedding's padding rows. Default: the vocabulary's; without one "
            "32100 of 32128 rows (T5), 250100 of 250112 (mT5), else all rows.",
        ),
        click.option(
            "--vocabulary",
            type=click.Path(dir_okay=False, path_type=Path),
            help="SentencePiece model to use, such as T5's spiece.model. Default: the one in the folder.",
        ),
    ):
        command = option(command)
    return command


as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)


@click.group()
def models() -> None:
    """Describe, convert and create base models.

    A MODEL is a folder (Hugging Face safetensors, T5X, or Chorus's own), a Hugging Face hub id such as
    google/t5-small-lm-adapt, or a T5X folder on Google Cloud Storage (gs://...).
    """


@models.command()
@click.argument("model")
@source_options
@as_json_option
@stated
def describe(model: str, as_json: bool, **flags: Any) -> None:
    """Print the architecture, the parameters, and the cost of a prompt at several lengths.

    MODEL may also be one of the named sizes of T5 1.1: tiny, small, base, large, xl, xxl. The table is Table
        4 of Lester et al. 2021: parameters of one prompt, of prompt and model together, and the share that is
        trained.
    """
    document = _describe_named(model) if _is_size(model) else _describe_checkpoint(model, flags, as_json)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print_description(document)


@models.command("convert")
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Choice(CHECKPOINT_FORMATS), default="orbax", show_default=True, help="Format to write."
)
@click.option(
    "--dtype",
    type=Spelled(DTYPES | {"int8": "int8"}),
    help="Cast the weights. int8 (orbax only) stores one byte for each value. Default: the source's type.",
)
@click.option(
    "--without-vocabulary",
    is_flag=True,
    help="Convert a model that has no spiece.model. It cannot be served.",
)
@source_options
@as_json_option
@stated
def convert_command(
    source: str,
    target: Path,
    to: Any,
    dtype: str | None,
    without_vocabulary: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Write SOURCE as the folder TARGET, which must not exist.

    Chorus's own format (orbax) loads fastest, and straight into a sharded model. Only this command reads
    pytorch_model*.bin: it executes nothing in such a file, and refuses anything but plain tensors. It needs
    memory for the largest tensor and about 1 GiB, whatever the size of the model.
    """
    from chorus_server.model.checkpoints.convert import convert_checkpoint

    options = _options(flags, allow_torch=True)
    with _progress(as_json) as progress:
        written = convert_checkpoint(
            source, target, to=to, dtype=dtype, options=options, progress=progress,
            need_vocabulary=not without_vocabulary,
        )  # fmt: skip
    _print_written(written, as_json)


@models.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--size", type=click.Choice(SIZES), required=True, help="A published size of T5 1.1.")
@click.option(
    "--to", type=click.Choice(CHECKPOINT_FORMATS), default="orbax", show_default=True, help="Format to write."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--dtype", type=Spelled(DTYPES), default="f32", show_default=True)
@click.option(
    "--vocabulary",
    type=click.Path(dir_okay=False, path_type=Path),
    help="SentencePiece model to put beside the weights; without one the model cannot read text.",
)
@as_json_option
@stated
def init(
    target: Path, size: str, to: Any, seed: int, dtype: str, vocabulary: Path | None, as_json: bool
) -> None:
    """Make the folder TARGET: a model of random weights, for benchmarks, tests and demonstrations."""
    from chorus_server.model.checkpoints.convert import write_random
    from chorus_server.model.checkpoints.vocabulary_files import fit_vocabulary

    config, found = fit_vocabulary(named_config(size), vocabulary)
    with _progress(as_json) as progress:
        written = write_random(
            config, target, seed=seed, to=to, dtype=dtype, vocabulary=found, progress=progress
        )
    _print_written(written, as_json)


@models.command()
@click.argument("model")
@click.option(
    "--verify", is_flag=True, help="Read every tensor again, even if a fingerprint is stored, and compare."
)
@source_options
@as_json_option
@stated
def fingerprint(model: str, verify: bool, as_json: bool, **flags: Any) -> None:
    """Print the fingerprint of a model, by which prompts recognise their base.

    The same weights have the same fingerprint in any format, in float32 or bfloat16.
    """
    from chorus_server.model.checkpoints.load import vocabulary_digest
    from chorus_server.model.checkpoints.verify import find_fingerprint, verify_fingerprint

    reader = _open(model, flags)
    with _progress(as_json) as progress:
        value = verify_fingerprint(reader, progress) if verify else find_fingerprint(reader, progress)
    if as_json:
        document = {"name": reader.config.name, "fingerprint": value, "verified": verify}
        click.echo(json.dumps({**document, "vocabulary_digest": vocabulary_digest(reader)}, indent=2))
    else:
        click.echo(value)


def _is_size(model: str) -> bool:
    return model in SIZES and not Path(model).exists()


def _options(flags: dict[str, Any], *, allow_torch: bool = False) -> OpenOptions:
    from chorus_server.model.checkpoints.opening import OpenOptions

    return OpenOptions(allow_torch=allow_torch, **flags)


def _open(model: str, flags: dict[str, Any]) -> CheckpointReader:
    from chorus_server.model.checkpoints.opening import open_checkpoint

    return open_checkpoint(model, _options(flags))


def _describe_named(size: str) -> dict[str, Any]:
    return {**_facts(named_config(size)), "format": None, "fingerprint": None, "vocabulary_digest": None}


def _describe_checkpoint(model: str, flags: dict[str, Any], as_json: bool) -> dict[str, Any]:
    from chorus_server.model.checkpoints.load import vocabulary_digest
    from chorus_server.model.checkpoints.verify import find_fingerprint

    reader = _open(model, flags)
    with _progress(as_json) as progress:
        value = find_fingerprint(reader, progress)
    return {
        **_facts(reader.config),
        "format": reader.format,
        "fingerprint": value,
        "vocabulary_digest": vocabulary_digest(reader),
    }


def _facts(config: T5Config) -> dict[str, Any]:
    return {
        "name": config.name,
        "parameters": parameter_count(config),
        "architecture": {
            key: value
            for key, value in dataclasses.asdict(config).items()
            if key not in ("name", "dropout_rate")
        },
        "prompts": [dataclasses.asdict(row) for row in prompt_table(config)],
    }


def _print_description(document: dict[str, Any]) -> None:
    console = Console()
    console.print(f"[bold]{document['name']}[/bold]  {document['parameters']:,} parameters")
    for key in ("format", "fingerprint", "vocabulary_digest"):
        if document[key]:
            console.print(f"{key.replace('_', ' ')}: {document[key]}", soft_wrap=True, highlight=False)
    shape = Table("architecture", "value", box=None)
    for key, value in document["architecture"].items():
        shape.add_row(key, str(value))
    console.print(shape)
    table = Table(box=None)
    for title in ("prompt length", "prompt parameters", "total parameters", "trainable %"):
        table.add_column(title, justify="right")
    for row in document["prompts"]:
        counts = (f"{row[key]:,}" for key in ("length", "prompt_parameters", "total_parameters"))
        table.add_row(*counts, f"{row['trainable_percent']:.5f}")
    console.print(table)


def _print_written(written: Any, as_json: bool) -> None:
    document = {**dataclasses.asdict(written), "path": str(written.path)}
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(
            f"Wrote {written.path} ({written.format}, {written.dtype}, {written.parameters:,} parameters)"
        )
        click.echo(f"Fingerprint {written.fingerprint}")


@contextmanager
def _progress(quiet: bool) -> Iterator[Report]:
    """A progress bar on standard error; none if the answer is JSON."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            bar.start()  # not earlier, because an empty bar would leave a blank line above an error
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done)

    try:
        yield report
    finally:
        if tasks:
            bar.stop()
