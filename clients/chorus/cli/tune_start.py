"""Start a tuning job from the command line, and follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chorus.cli.job_following import follow_to_end
from chorus.cli.output import print_json
from chorus.cli.session import Session
from chorus.cli.sweep_tables import plan_of
from chorus.cli.tune_options import data_of, document_of, json_pairs, pairs, take_splits
from chorus.types import Job


def begin(
    session: Session,
    task: str | None,
    train: str | None,
    document: Path | None,
    follow: bool,
    given: dict[str, Any],
) -> None:
    """Queue a job and, with `follow`, show it until it is over.

    Args:
        given: the other options of `chorus tune start`, and `sweep`.

    Raises:
        UsageError: there is neither a task with its data nor a document.
    """
    whole = document_of(document) if document is not None else None
    if whole is None and (task is None or train is None):
        raise click.UsageError("Name the task and its training data, or give --document.")
    splits = {} if whole is None or document is None else take_splits(whole, document.parent)
    arguments = splits | arguments_of(task, train, given)
    with session.client() as client:
        job = client.tuning.start(**arguments, document=whole)
        if not session.as_json and (plan := plan_of(job)):
            click.echo(plan, err=True)
        if not follow:
            _tell_started(session, job)
            return
        if not session.as_json:
            click.echo(f"{job.id} started", err=True)
        follow_to_end(session, client, job)


def arguments_of(task: str | None, train: str | None, given: dict[str, Any]) -> dict[str, Any]:
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
