"""`chorus tasks push` and `pull`: prompts as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chorus.artifacts import FORMATS, Format, format_of
from chorus.cli.output import clean, print_json
from chorus.cli.session import Session, with_session
from chorus.cli.values import JsonObject


@click.command()
@click.argument("task")
@click.argument("artifact", metavar="FILE_OR_FOLDER", type=click.Path(exists=True, path_type=Path))
@click.option("--template", help='How fields become text, "premise: {premise}". [default: {text}]')
@click.option("--label", "labels", multiple=True, help="A label of a classification task; repeat, in order.")
@click.option("--settings", type=JsonObject(), help="Default settings of generation.")
@click.option("--base-fingerprint", help="Fingerprint of the base model that the prompt was tuned on.")
@click.option(
    "--task-index", type=click.IntRange(min=0), help="Of a PEFT adapter of several tasks, which one."
)
@click.option("--metrics", type=JsonObject(), help='Metrics measured when it was made:  {"accuracy": 0.93}.')
@click.option("--lineage", type=JsonObject(), help="Where it came from.")
@click.option("--description", help="Description of the task.")
@click.option("--promote", is_flag=True, help="Point the alias at the new version.")
@click.option("--alias", default="live", show_default=True, help="The alias that --promote moves.")
@with_session
def push(
    session: Session,
    task: str,
    artifact: Path,
    labels: tuple[str, ...],
    promote: bool,
    alias: str,
    **metadata: Any,
) -> None:
    """Upload a prompt as the next version of TASK.

    FILE_OR_FOLDER is a .safetensors, .npy or PEFT .zip file, or a PEFT adapter's folder. The first version of
    a task goes live at once, later ones when promoted. If you push the same prompt and settings again, you
    get the same version.
    """
    with session.client() as client:
        version = client.tasks.push(
            task, artifact, labels=list(labels) or None, promote_to=alias if promote else None, **metadata
        )
    if session.as_json:
        print_json(version)
        return
    name = clean(f"{version.task}@{version.version}")
    pointing = f", now {', '.join(version.aliases)}" if version.aliases else ""
    click.echo(f"{name} {'was there already' if version.created is False else 'created'}{clean(pointing)}")
    for note in version.notes:
        click.echo(f"note: {clean(note)}", err=True)


@click.command()
@click.argument("task")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--version", help="A number or an alias. [default: live]")
@click.option("--format", type=click.Choice(FORMATS), help="[default: what PATH ends in, else safetensors]")
@with_session
def pull(session: Session, task: str, path: Path, version: str | None, format: Format | None) -> None:
    """Download the prompt of TASK (TASK@live, TASK@3) to PATH.

    PATH ends in .safetensors, .npy or .zip (PEFT). With --format peft, PATH may also be the folder to make.
    """
    format = format or format_of(path)
    with session.client() as client:
        saved = client.tasks.pull(task, path, version=version, format=format)
    if session.as_json:
        print_json({"path": str(saved), "format": format})
    else:
        click.echo(f"saved to {saved}")
