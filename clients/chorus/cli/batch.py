"""`chorus batch`: many requests from a file, answered into another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from chorus.cli.batch_rows import Question, fields_of
from chorus.cli.batch_run import Run, follow
from chorus.cli.job_commands import error_of, list_command, progress_of, steering_command, tell_event
from chorus.cli.job_following import DETACHED
from chorus.cli.output import clean, print_facts, print_json
from chorus.cli.session import Session, with_session
from chorus.cli.table_files import check_formats, format_of
from chorus.cli.tune_options import json_pairs, pairs
from chorus.client import Client
from chorus.saving import require_folder
from chorus.types import BatchJob, JobEvent

BASE = "base"


@click.group(short_help="Answer the lines or rows of a file into another.")
def batch() -> None:
    """Answer the lines or rows of a file into another.

    \b
    chorus batch run lines.jsonl answers.jsonl
    chorus batch run reviews.csv answered.csv --task sst2
    """


@batch.command()
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("target", metavar="OUTPUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--task", metavar="REFERENCE", help="Ask this prompt, or `base`, about every row of INPUT.")
@click.option(
    "--classify/--generate", "ranked", default=True, help="Choose a label, or write. [default: classify]"
)
@click.option(
    "--label", "labels", multiple=True, help="A label to choose from; repeat. [default: the task's own]"
)
@click.option(
    "--column", "columns", multiple=True, metavar="FIELD=COLUMN", help="Column of a template field; repeat."
)
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="max_new_tokens=8; repeat.",
)
@click.option(
    "--prefix", default="", help="Put before the names of the added columns answer, probability and error."
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@with_session
def run(
    session: Session,
    source: Path,
    target: Path,
    task: str | None,
    ranked: bool,
    labels: tuple[str, ...],
    columns: tuple[str, ...],
    settings: tuple[str, ...],
    prefix: str,
    resume: bool,
) -> None:
    """Answer INPUT into OUTPUT by a batch of the server, which goes on whatever becomes of this command.

    INPUT has lines of `custom_id`, `method`, `url` and `body` (JSON Lines). OUTPUT gets their answers, and
    those that failed go to its name with `.errors.jsonl`. With --task it has rows (CSV, TSV, JSON Lines,
    Parquet), and OUTPUT gets them with the answers as further columns. With --resume no answered line is
    asked again.
    """
    require_folder(target)
    with session.client() as client:
        question = None
        if task is not None:
            check_formats(source, target)
            given = {**json_pairs(settings, "--setting"), **({"labels": list(labels)} if labels else {})}
            question = _question(client, task, ranked, pairs(columns, "--column"), given, prefix)
            question.check(source)
        elif labels or columns or settings or prefix:
            raise click.UsageError("--label, --column, --setting and --prefix go with --task.")
        elif format_of(source) != "jsonl":
            raise click.UsageError("Give --task to ask about the rows of a table.")
        _carry_out(session, client, Run(source, target, question), resume)


@batch.command()
@click.argument("job")
@with_session
def show(session: Session, job: str) -> None:
    """Show JOB: how far it is, and the files of its answers."""
    with session.client() as client:
        found = client.batches.get(job)
    if session.as_json:
        print_json(found)
        return
    facts: dict[str, object] = {
        "job": found.id,
        "status": found.status,
        "endpoint": found.endpoint,
        "file": found.file,
        "rows": progress_of(found),
        "failed": found.progress.get("failed"),
        "answers": found.output_file,
        "errors": found.error_file,
        "created": found.created_at,
        "finished": found.finished_at,
    }
    if (error := error_of(found)) is not None:
        facts["error"] = error
    print_facts(facts)


def _question(
    client: Client, task: str, ranked: bool, columns: dict[str, str], settings: dict[str, Any], prefix: str
) -> Question:
    if task == BASE:
        columns, reference = columns or {"text": "text"}, None
    else:
        fields = fields_of(client.tasks.version(task).template)
        unknown = [field for field in columns if field not in fields]
        if unknown:
            raise click.UsageError(f"--column names {unknown[0]!r}; the template has {', '.join(fields)}.")
        columns, reference = {field: columns.get(field, field) for field in fields}, task
    return Question("/v1/classify" if ranked else "/v1/generate", reference, columns, settings, prefix)


def _carry_out(session: Session, client: Client, planned: Run, resume: bool) -> None:
    job = planned.begin(client, resume=resume)
    click.echo(f"{job.id} started", err=True)
    try:
        with _progress(session) as tell:
            ended = follow(client, job, tell)
    except KeyboardInterrupt:
        click.echo(
            f"\n{job.id} goes on by itself: give --resume to wait for it and write the answers.", err=True
        )
        raise SystemExit(DETACHED) from None
    if not ended.succeeded:
        _tell_failure(planned, ended)
        raise SystemExit(1)
    count = planned.finish(client, ended)
    failed = ended.result.get("failed", 0)
    if session.as_json:
        print_json({"event": "done", "job": ended}, one_line=True)
        return
    where = f" in {planned.errors}" if planned.question is None and failed else ""
    told = f", {failed} of them with an error{where}" if failed else ""
    click.echo(f"{planned.target}: {count} answers{told}", err=True)


def _tell_failure(planned: Run, ended: BatchJob) -> None:
    error = ended.error or {}
    told = f"chorus: {ended.id} {ended.status} {error.get('message', '')}"
    click.echo(" ".join(clean(told).split()), err=True)
    faults = ended.progress.get("faults") or []
    for fault in faults[1:]:
        click.echo(clean(f"  line {fault.get('line')}: {fault.get('message')}"), err=True)
    if faults:  # the file will not become better
        planned.forget()
    else:
        click.echo("give --resume to go on with it.", err=True)


@contextmanager
def _progress(session: Session) -> Iterator[Any]:
    """Takes the events of a batch."""
    console = Console(stderr=True, highlight=False)
    if session.as_json or not sys.stderr.isatty():
        yield lambda event: tell_event(session, event)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("", total=None)

        def tell(event: JobEvent) -> None:
            if event.kind == "rows":
                bar.update(shown, completed=event.data["rows"], total=event.data["rows_in_all"])

        yield tell


batch.add_command(
    list_command(lambda client: client.batches, "batches", "endpoint", lambda job: job.endpoint)
)
batch.add_command(steering_command(lambda client: client.batches, "cancel"))
