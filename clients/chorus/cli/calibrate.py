"""`chorus calibrate` and `chorus tasks calibrations`: what probabilities of labels mean."""

from __future__ import annotations

from pathlib import Path

import click

from chorus.cli.output import clean, print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.cli.tune_options import pairs
from chorus.types import Calibration, CalibrationJob, CoveragePoint

_MOST_SHOWN = 6


@click.command()
@click.argument("task")
@click.argument("file", metavar="FILE_OR_ID")
@click.option("--version", help="A number or an alias. [default: live]")
@click.option("--format", type=click.Choice(["jsonl", "csv", "tsv", "parquet"]), help="[default: by ending]")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Column of a template field, if their names differ; repeat.",
)
@click.option("--target", metavar="COLUMN", help="Column of the answer. [default: label]")
@click.option(
    "--target-text",
    "target_texts",
    multiple=True,
    metavar="VALUE=LABEL",
    help="What a value of --target means: 0=negative; repeat.",
)
@click.option("--label", "labels", multiple=True, help="A label, if not the version's own; repeat, in order.")
@click.option(
    "--prior/--no-prior",
    default=None,
    help="Fit a prior a label too, or the temperature alone. [default: --prior]",
)
@with_session
def calibrate(
    session: Session,
    task: str,
    file: str,
    version: str | None,
    format: str | None,
    columns: tuple[str, ...],
    target: str | None,
    target_texts: tuple[str, ...],
    labels: tuple[str, ...],
    prior: bool | None,
) -> None:
    """Calibrate TASK (TASK@3, TASK@live) on rows whose answers are known, and wait for it.

    \b
    chorus calibrate sst2 dev.tsv --column text=sentence --target-text 0=negative --target-text 1=positive

    FILE_OR_ID is a JSONL, CSV, TSV or Parquet file of 50 rows or more, or the id of an uploaded one. No
    prompt should have learned from its rows. Tuning jobs calibrate what they make; this is for prompts that
    were uploaded.
    """
    with session.client() as client:
        path = Path(file)
        known = client.files.push(path).id if path.exists() else file
        job = client.tasks.calibrate(
            task,
            known,
            version=version,
            format=format,
            columns=pairs(columns, "--column") or None,
            target=target,
            target_texts=pairs(target_texts, "--target-text") or None,
            labels=list(labels) or None,
            prior=prior,
        )
        client.jobs.wait(job.id)  # interrupted here, it goes on on the server
        job = client.tasks.calibration_job(task, job)
        if job.status != "succeeded":
            print_json(job) if session.as_json else click.echo(_ending(job), err=True)
            raise click.exceptions.Exit(1)
        name = f"{job.task}@{job.version}"
        made = client.tasks.calibration(name, job.result["calibration"])
    if session.as_json:
        print_json(made)
        return
    raw, after = made.measures.raw, made.measures.calibrated
    click.echo(
        clean(
            f"{name} has calibration {made.calibration}: temperature {made.temperature:.3g} of {made.rows} "
            f"rows, calibration error {raw.ece:.3f} before and {after.ece:.3f} after"
        )
    )
    for point in after.risk_coverage:
        click.echo(f"  {_shown(point)}")


def _ending(job: CalibrationJob) -> str:
    error = job.error or {}
    return clean(f"{job.id} {job.status}" + (f": {error.get('message', '')}" if error else ""))


def _shown(point: CoveragePoint) -> str:
    if point.confidence is None:
        return f"at {point.accuracy:.0%} accuracy, answer nothing by itself"
    return (
        f"at {point.accuracy:.0%} accuracy, answer {point.coverage:.0%} by itself: from a probability of "
        f"{point.confidence:.3f} on"
    )


@click.command()
@click.argument("task")
@click.option("--version", help="A number or an alias. [default: live]")
@with_session
def calibrations(session: Session, task: str, version: str | None) -> None:
    """List the calibrations of TASK (TASK@3, TASK@live), newest first. The first one serves."""
    with session.client() as client:
        found = client.tasks.calibrations(task, version)
    if session.as_json:
        print_json({"calibrations": found})
        return
    print_table(
        ("#calibration", "matrices", "#temperature", "prior", "#rows", "#ece before", "#after", "coverage"),
        map(_row, found),
        empty="The version has no calibration.",
    )


def _row(made: Calibration) -> tuple[object, ...]:
    before, after = made.measures.raw, made.measures.calibrated
    covered = [f"{point.coverage:.0%} at {point.accuracy:.0%}" for point in after.risk_coverage]
    prior = "" if made.prior is None else [f"{label} {own:+.2f}" for label, own in made.prior.items()]
    if len(prior) > _MOST_SHOWN:
        prior = f"of {len(prior)} labels"
    return (
        made.calibration,
        made.matrix_dtype,
        f"{made.temperature:.3f}",
        prior,
        made.rows,
        f"{before.ece:.3f}",
        f"{after.ece:.3f}",
        covered,
    )
