"""`chorus tune`: make new prompts from data, and look after the jobs that do so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chorus.cli import tune_jobs
from chorus.cli.session import Session, with_session
from chorus.cli.start_group import StartGroup
<<<<<<< HEAD
from chorus.cli.tune_options import job_options
from chorus.cli.tune_start import begin
=======
from chorus.cli.tune_options import data_of, document_of, json_pairs, pairs, take_splits
from chorus.cli.values import JsonObject
>>>>>>> main
from chorus.routes.tuning import EARLIER_SPLITS


def _present_name(word: str) -> str:
    """The name of an option, or of its choice, by what 0.1.0 called it: `selection-rows`, say."""
    first, dash, rest = word.partition("-")
    return EARLIER_SPLITS.get(first, first) + dash + rest


@click.group(cls=StartGroup, short_help="Tune new prompts, and look after tuning jobs.")
def tune() -> None:
    """Tune new prompts against the server's frozen model.

    \b
    chorus tune sst2 train.tsv --template "{sentence}" --label negative --label positive \\
        --target-text 0=negative --target-text 1=positive --recipe prompt_length=20 --recipe steps=1000

    `chorus tune TASK TRAIN` is short for `chorus tune start TASK TRAIN`.
    """


@tune.command(context_settings={"token_normalize_func": _present_name})
@click.argument("task", required=False)
@click.argument("train", required=False)
<<<<<<< HEAD
@job_options
@click.option("--ensemble", type=int, help="Make this many prompts, and an ensemble of them.")
@click.option("--ensemble-name", help="[default: TASK-ensemble]")
=======
@click.option(
    "--validation", metavar="DATA", help="Split that chooses the checkpoint. [default: cut from TRAIN]"
)
@click.option("--test", metavar="DATA", help="Split that is measured once, at the end.")
@click.option("--template", help='How columns become text, "{sentence}". [default: {text}]')
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Column of a template field, if their names differ; repeat.",
)
@click.option("--target", metavar="COLUMN", help="Column of the answer. [default: label]")
@click.option(
    "--target-text", "target_texts", multiple=True, metavar="VALUE=ANSWER", help="0=negative; repeat."
)
@click.option("--label", "labels", multiple=True, help="A label of a classification task; repeat, in order.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="Metric; the mean of all chooses the checkpoint; repeat. [default: accuracy; exact_match for free "
    "text]",
)
@click.option(
    "--metric-column",
    "metric_columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Column that a metric needs beside the answer: group=question, label=correct; repeat.",
)
@click.option(
    "--answer-by",
    type=click.Choice(["ranked", "greedy"]),
    help="Measure the most probable label, or the text that the prompt writes. [default: ranked]",
)
@click.option(
    "--recipe",
    multiple=True,
    metavar="KNOB=VALUE",
    help="A knob, as in steps=1000; repeat. [default: the paper's]",
)
@click.option("--format", type=click.Choice(["jsonl", "csv", "tsv", "parquet"]), help="[default: by ending]")
@click.option("--validation-rows", type=int, help="Rows to cut from TRAIN. [default: a tenth]")
@click.option(
    "--validation-from", type=click.Choice(["train", "test"]),
    help="Cut the validation split from TRAIN, or choose on TEST, whose figures then flatter. [default: "
    "train]",
)  # fmt: skip
@click.option("--seed", type=int, help="Seed of everything random. [default: 0]")
@click.option("--ensemble", type=int, help="Make this many prompts, and an ensemble of them.")
@click.option("--ensemble-name", help="[default: TASK-ensemble]")
@click.option("--initial-prompt", metavar="REFERENCE", help="Start from this prompt.")
@click.option("--promote", is_flag=True, default=None, help="Move @live to the new version.")
@click.option("--description", help="Description of the task.")
@click.option("--settings", type=JsonObject(), help="Default settings of generation.")
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A whole job document in JSON; its data may name files beside it. Other options override it.",
)
>>>>>>> main
@click.option("--follow/--detach", default=True, help="Show the job until it is over. [default: follow]")
@with_session
def start(
    session: Session,
    task: str | None,
    train: str | None,
    document: Path | None,
    follow: bool,
    **given: Any,
) -> None:
    """Tune TASK on TRAIN and follow the job. Ctrl-C leaves it running.

    TRAIN and the other DATA are local JSONL, CSV, TSV or Parquet files, which are uploaded; or the id of an
    uploaded file; or a URL or server:PATH, if the server's operator allows them. The first version of a task
    goes live at once, later ones when promoted.
    """
<<<<<<< HEAD
    begin(session, task, train, document, follow, given)
=======
    whole = document_of(document) if document is not None else None
    if whole is None and (task is None or train is None):
        raise click.UsageError("Name the task and its training data, or give --document.")
    splits = {} if whole is None or document is None else take_splits(whole, document.parent)
    arguments = splits | _arguments(task, train, given)
    with session.client() as client:
        job = client.tuning.start(**arguments, document=whole)
        if not follow:
            _tell_started(session, job)
            return
        if not session.as_json:
            click.echo(f"{job.id} started", err=True)
        follow_to_end(session, client, job)


def _arguments(task: str | None, train: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `client.tuning.start` that were given."""
    data = {name: given.pop(name) for name in ("format", "validation_rows", "validation_from")}
    found: dict[str, Any] = {
        "columns": pairs(given.pop("columns"), "--column"),
        "target_texts": pairs(given.pop("target_texts"), "--target-text"),
        "metric_columns": pairs(given.pop("metric_columns"), "--metric-column"),
        "labels": list(given.pop("labels")),
        "metrics": list(given.pop("metrics")),
        "recipe": json_pairs(given.pop("recipe"), "--recipe"),
        "task": task,
    }
    for name, text in (
        ("train", train),
        ("validation", given.pop("validation")),
        ("test", given.pop("test")),
    ):
        found[name] = None if text is None else data_of(text, name)
    found["data"] = {name: value for name, value in data.items() if value is not None}
    return {name: value for name, value in {**found, **given}.items() if value not in (None, [], {})}


def _tell_started(session: Session, job: Job) -> None:
    if session.as_json:
        print_json(job)
        return
    click.echo(job.id)
    click.echo(f"Follow it: chorus tune follow {job.id}", err=True)
>>>>>>> main


for command in (
    tune_jobs.follow,
    tune_jobs.list_,
    tune_jobs.show,
    tune_jobs.cancel,
    tune_jobs.pause,
    tune_jobs.resume,
):
    tune.add_command(command)
