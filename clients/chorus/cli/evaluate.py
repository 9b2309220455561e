"""`chorus evaluate`: how good answers are on a file, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click

from chorus.cli.evaluation_chart import evaluation_svg
from chorus.cli.evaluation_options import (
    BASE,
    CALIBRATED,
    FEW_SHOT,
    arguments_of,
    base_of,
    name_of,
    subject_of,
)
from chorus.cli.evaluation_tables import EvaluatedFile, across_files, print_across_files, print_evaluation
from chorus.cli.job_commands import (
    error_of,
    follow_rows,
    list_command,
    progress_of,
    steering_command,
    tell,
    tell_ended,
)
from chorus.cli.output import clean, print_facts, print_json
from chorus.cli.session import Session, with_session
from chorus.cli.start_group import StartGroup
from chorus.client import Client
from chorus.errors import ApiError
from chorus.saving import require_folder, write_file
from chorus.types import Evaluation


@click.group(cls=StartGroup, short_help="Evaluate prompts, ensembles, packs and the base model on a file.")
def evaluate() -> None:
    """Evaluate prompts, ensembles, questions of packs and the base model on the rows of a file.

    \b
    chorus evaluate sst2 test.tsv
    chorus evaluate sst2@3 sst2@4 ensemble:sst2-ensemble test.tsv --chart sst2.svg

    `chorus evaluate REFERENCE FILE` is short for `chorus evaluate start REFERENCE FILE`.
    """


@evaluate.command()
@click.argument("references", nargs=-1, metavar="REFERENCE... FILE")
@click.option("--instruction", help="Text before each input of `base`.")
@click.option("--template", help='How columns become the text of `base`, "{sentence}". [default: {text}]')
@click.option(
    "--few-shot",
    type=click.IntRange(0, 32),
    help="Rows of --examples that `base:few-shot` is shown; `base` itself where that is not named.",
)
@click.option("--examples", metavar="DATA", help="File from which --few-shot and `majority` take rows.")
@click.option("--also", multiple=True, metavar="FILE", help="A further file to evaluate all on; repeat.")
@click.option(
    "--answer-by",
    type=click.Choice(["ranked", "calibrated", "greedy"]),
    help="The most probable label; the same by calibrated probabilities; or the text that the model writes. "
    "[default: ranked with labels]",
)
@click.option(
    "--label", "labels", multiple=True, help="A possible answer; repeat. [default: the prompts' own]"
)
@click.option("--metric", "metrics", multiple=True, help="A metric of tuning; repeat.")
@click.option(
    "--metric-column",
    "metric_columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Column that a metric needs: group=question, label=correct; repeat.",
)
@click.option(
    "--column", "columns", multiple=True, metavar="FIELD=COLUMN", help="Column of a template field; repeat."
)
@click.option("--target", metavar="COLUMN", help="Column of the answer. [default: label]")
@click.option(
    "--target-text",
    "target_texts",
    multiple=True,
    metavar="VALUE=ANSWER",
    help="What a value of --target means: 0=negative; repeat.",
)
@click.option("--format", type=click.Choice(["jsonl", "csv", "tsv", "parquet"]), help="[default: by ending]")
@click.option("--seed", type=int, help="Seed of resamples, and of the choice of examples. [default: 0]")
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Further fields of the document in JSON; references and options override them, and `base` takes "
    "what its `base` has.",
)
@click.option("--chart", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture here (SVG).")
@click.option(
    "--predictions",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was said to each row here (JSON Lines).",
)
@click.option("--follow/--detach", default=True, help="Wait for the result. [default: follow]")
@with_session
def start(
    session: Session,
    references: tuple[str, ...],
    also: tuple[str, ...],
    chart: Path | None,
    predictions: Path | None,
    follow: bool,
    **given: Any,
) -> None:
    """Evaluate each REFERENCE on FILE. Later ones are compared with the first. Ctrl-C leaves it running.

    REFERENCE is a prompt's, such as sst2@3; ensemble:NAME; pack:NAME:QUESTION, a question of a decision
    pack; base, the model without a prompt, also base:calibrated (less each label's mean over the rows) and
    base:few-shot; or majority, the commonest answer of --examples. FILE is a local JSONL, CSV, TSV or Parquet
    file, which is uploaded, or the id of an uploaded one. With --also, the end is a table of all files.
    """
    if len(references) < 2:
        raise click.UsageError("Name what to evaluate, and then the file: chorus evaluate sst2 test.tsv")
    for path in (chart, predictions):
        if path is not None:
            require_folder(path)
    *names, file = references
    options = {name: given.pop(name) for name in ("instruction", "template", "few_shot")}
    base = {name: value for name, value in options.items() if value is not None}
    if base and not {BASE, FEW_SHOT, CALIBRATED} & set(names):
        raise click.UsageError("--instruction, --template and --few-shot go with the reference base.")
    arguments = arguments_of(given)
    base = base_of(arguments.get("document", {})) | base
    if (FEW_SHOT in names) > bool(base.get("few_shot")):
        raise click.UsageError(f"{FEW_SHOT} needs --few-shot, the number of rows, and --examples.")
    if also and (chart is not None or predictions is not None):
        raise click.UsageError("--chart and --predictions are of one file: leave out --also.")
    subjects = [subject_of(name, base, FEW_SHOT in names) for name in names]
    with session.client() as client:
        if also:
            jobs = [client.evaluations.start(subjects, each, **arguments) for each in (file, *also)]
            for job in jobs:
                tell(session, job) if not follow else click.echo(f"{job.id} started", err=True)
            if follow:
                ended = [_followed(session, client, job) for job in jobs]
                _table(session, client, ended, None, (file, *also))
            return
        job = client.evaluations.start(subjects, file, **arguments)
        if not follow:
            tell(session, job, f"Follow it: chorus evaluate follow {job.id}")
            return
        click.echo(f"{job.id} started", err=True)
        _finish(session, client, job, chart, predictions)


@evaluate.command()
@click.argument("job")
@click.option("--chart", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture here (SVG).")
@click.option("--predictions", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON Lines here.")
@with_session
def follow(session: Session, job: str, chart: Path | None, predictions: Path | None) -> None:
    """Wait for JOB and show its result. Exits with 1 if it failed or was cancelled."""
    with session.client() as client:
        _finish(session, client, client.evaluations.get(job), chart, predictions)


@evaluate.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--metric", help="Only this metric. [default: all]")
@with_session
def table(session: Session, jobs: tuple[str, ...], metric: str | None) -> None:
    """Put finished evaluations into one table: a row for each subject, a column for each file.

    Versions of one task share a row, with the mean of their figures, the standard deviation (n - 1) and how
    many there are: name the seeds of one recipe. Files are the same if their bytes are.
    """
    with session.client() as client:
        _table(session, client, [client.evaluations.get(job) for job in jobs], metric)


@evaluate.command()
@click.argument("job")
@with_session
def show(session: Session, job: str) -> None:
    """Show JOB: what it evaluates, how far it is, what it found."""
    with session.client() as client:
        found = client.evaluations.get(job)
    if session.as_json:
        print_json(found)
        return
    facts: dict[str, object] = {
        "job": found.id,
        "status": found.status,
        "subjects": [name_of(each) for each in found.subjects],
        "rows": progress_of(found),
        "created": found.created_at,
        "finished": found.finished_at,
    }
    if (error := error_of(found)) is not None:
        facts["error"] = error
    print_facts(facts)
    if found.succeeded:
        print_evaluation(found)


def _finish(
    session: Session, client: Client, job: Evaluation, chart: Path | None, predictions: Path | None
) -> None:
    """Wait for the end, and show it."""
    ended = _followed(session, client, job)
    if not session.as_json:
        print_evaluation(ended)
    if chart is not None:
        write_file(chart, evaluation_svg(ended).encode())
        click.echo(f"{chart} written", err=True)
    if predictions is not None:
        write_file(predictions, client.evaluations.predictions(ended))
        click.echo(f"{predictions} written", err=True)


def _followed(session: Session, client: Client, job: Evaluation) -> Evaluation:
    """Wait for the end, and tell how far it is. Exits with 1 if it failed or was cancelled."""
    again = f"{job.id} goes on by itself: chorus evaluate follow {job.id}"
    follow_rows(session, client.evaluations.events(job), again)
    ended = client.evaluations.get(job)
    tell_ended(session, ended)
    return ended


def _table(
    session: Session, client: Client, jobs: list[Evaluation], metric: str | None, paths: Sequence[str] = ()
) -> None:
    """One table of several evaluations.

    Args:
        paths: of their files, if they are known.
    """
    for job in jobs:
        if not job.succeeded:
            raise click.UsageError(
                f"{clean(job.id)} is {clean(job.status)}: name evaluations that succeeded."
            )
    files = [_file(client, str(job.spec.get("file")), path) for job, path in zip_longest(jobs, paths)]
    found = across_files(list(zip(files, jobs, strict=True)), metric)
    if session.as_json:
        print_json({"figures": found})
        return
    if not found:
        raise click.UsageError(f"None of them has the metric {metric}.")
    print_across_files(found)


def _file(client: Client, id: str, path: str | None) -> EvaluatedFile:
    try:
        found = client.files.get(id)
    except ApiError:
        return EvaluatedFile(id, id, id)
    return EvaluatedFile(found.sha256, found.name, path or f"{found.name} ({id})")


evaluate.add_command(
    list_command(
        lambda client: client.evaluations,
        "evaluations",
        "subjects",
        lambda job: [name_of(each) for each in job.subjects],
    )
)
evaluate.add_command(steering_command(lambda client: client.evaluations, "cancel"))
evaluate.add_command(steering_command(lambda client: client.evaluations, "resume"))
