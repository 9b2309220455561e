"""`chorus tune`: make new prompts from data, and look after the jobs that do so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chorus.cli import tune_jobs
from chorus.cli.session import Session, with_session
from chorus.cli.start_group import StartGroup
from chorus.cli.tune_options import job_options
from chorus.cli.tune_start import begin
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
@job_options
@click.option("--ensemble", type=int, help="Make this many prompts, and an ensemble of them.")
@click.option("--ensemble-name", help="[default: TASK-ensemble]")
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
    begin(session, task, train, document, follow, given)


for command in (
    tune_jobs.follow,
    tune_jobs.list_,
    tune_jobs.show,
    tune_jobs.mistakes,
    tune_jobs.cancel,
    tune_jobs.pause,
    tune_jobs.resume,
):
    tune.add_command(command)
