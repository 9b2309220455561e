"""`chorus datasets`: public datasets as rows and documents for `chorus tune` and `chorus evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from chorus.cli.output import print_json, print_table
from chorus.cli.session import Session, with_session
from chorus.datasets import DATASETS, Prepared, prepare
from chorus.datasets.prepare import DEV, EVALUATION, JOB, TRAIN


@click.group()
def datasets() -> None:
    """Prepare public datasets from their official files, in T5's text forms. Needs no server."""


@datasets.command("list")
@with_session
def list_(session: Session) -> None:
    """List the datasets, with their files and where these are published."""
    found = [
        {
            "dataset": each.name,
            "files": [name for names in each.files.values() for name in names],
            "official": each.official,
        }
        for each in DATASETS.values()
    ]
    if session.as_json:
        print_json({"datasets": found})
        return
    print_table(("dataset", "files", "official"), ([*each.values()] for each in found))


@datasets.command("prepare")
@click.argument("dataset", metavar="DATASET")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--task", help="Task that the job document names. [default: superglue-boolq]")
@with_session
def prepare_(session: Session, dataset: str, source: Path, folder: Path, task: str | None) -> None:
    """Write DATASET from SOURCE, the folder or zip with its official files, into the new FOLDER.

    \b
    chorus datasets prepare superglue/boolq ~/Downloads/BoolQ.zip boolq
    chorus tune --document boolq/job.json

    FOLDER gets a JSON Lines file for each split; job.json, a document for `chorus tune`; and evaluation.json,
    one for `chorus evaluate`. What is printed is how many rows have each label.
    """
    made = prepare(dataset, source, folder, task=task)
    if session.as_json:
        print_json(
            {
                "dataset": made.dataset,
                "folder": str(made.folder),
                "task": made.task,
                "splits": {
                    each.name: {"rows": each.rows, "examples": each.examples, "labels": each.labels}
                    for each in made.splits
                },
                "warnings": list(made.warnings),
            }
        )
        return
    _tell(made)


def _tell(made: Prepared) -> None:
    for warning in made.warnings:
        click.echo(warning, err=True)
    rows: list[tuple[object, ...]] = []
    for split in made.splits:
        rows.append((split.name, split.rows, split.examples, "", "", ""))
        for label, count in split.labels.items():
            rows.append(("", "", "", label, count, f"{count / split.rows:.1%}"))
    columns = ("split", "#rows", "#examples", "label", "#count", "#share")
    print_table(columns, rows)
    click.echo(f"Written to {made.folder}.")
    names = [split.name for split in made.splits]
    if TRAIN in names:
        click.echo(f"\nTune it:      chorus tune --document {made.folder / JOB}")
    tried = next((name for name in (DEV, *names) if name in names and name != TRAIN), None)
    if tried is not None:
        file, document = made.folder / f"{tried}.jsonl", made.folder / EVALUATION
        calibrated = " base:calibrated" if DATASETS[made.dataset].labels else ""
        majority, examples = "", ""
        if TRAIN in names:
            majority, examples = " majority", f" --examples {made.folder / f'{TRAIN}.jsonl'}"
        subjects = f"{made.task}{majority} base{calibrated}"
        click.echo(f"Evaluate it:  chorus evaluate {subjects} {file} --document {document}{examples}")
