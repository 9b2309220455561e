"""`chorus tasks push` and `pull`: prompts as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from chorus.artifacts import FORMATS, Format, format_of
from chorus.cli.hub import PREFIX, pull_from_hub
from chorus.cli.output import clean, print_json
from chorus.cli.session import Session, with_session
from chorus.cli.values import JsonObject
from chorus.types import Version

R = TypeVar("R")


def said_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options by which a person says what a prompt is; what its file says counts where they are not
    given."""
    for option in (
        click.option("--alias", default="live", show_default=True, help="The alias that --promote moves."),
        click.option("--promote", is_flag=True, help="Point the alias at the new version."),
        click.option("--description", help="Description of the task."),
        click.option(
            "--task-index",
            type=click.IntRange(min=0),
            help="Which task of a PEFT adapter that has several; 0 is the first.",
        ),
        click.option(
            "--base-fingerprint", help="Fingerprint of the base model that the prompt was tuned on."
        ),
        click.option("--settings", type=JsonObject(), help="Default settings of generation."),
        click.option(
            "--label", "labels", multiple=True, help="A label of a classification task; repeat, in order."
        ),
        click.option("--template", help='How fields become text, "premise: {premise}". [default: {text}]'),
    ):
        command = option(command)
    return command


def _metadata(*, labels: tuple[str, ...], promote: bool, alias: str, **others: Any) -> dict[str, Any]:
    """The options as arguments of `client.tasks.push`."""
    return {"labels": list(labels) or None, "promote_to": alias if promote else None, **others}


@click.command()
@click.argument("task")
@click.argument("artifact", metavar="FILE_OR_FOLDER", type=click.Path(exists=True, path_type=Path))
@said_options
@click.option("--metrics", type=JsonObject(), help='Metrics measured when it was made:  {"accuracy": 0.93}.')
@click.option("--lineage", type=JsonObject(), help="Where it came from.")
@with_session
def push(session: Session, task: str, artifact: Path, **said: Any) -> None:
    """Upload a prompt as the next version of TASK.

    FILE_OR_FOLDER is a .safetensors, .npy or PEFT .zip file, or a PEFT adapter's folder. The first version of
    a task goes live at once, later ones when promoted. If you push the same prompt and settings again, you
    get the same version.
    """
    with session.client() as client:
        _tell(session, client.tasks.push(task, artifact, **_metadata(**said)))


@click.command()
@click.argument("source", metavar="TASK_OR_HUB")
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--version", help="A number or an alias. [default: live]")
@click.option("--format", type=click.Choice(FORMATS), help="[default: what PATH ends in, else safetensors]")
@click.option("--task", help="From the hub: the task to push to. [default: the repository's name]")
@said_options
@with_session
def pull(
    session: Session,
    source: str,
    path: Path | None,
    version: str | None,
    format: Format | None,
    task: str | None,
    **said: Any,
) -> None:
    """Download the prompt of TASK (TASK@live, TASK@3) to PATH, or a PEFT adapter of the hub to the server.

    PATH ends in .safetensors, .npy or .zip (PEFT). With --format peft, PATH may also be the folder to make.

    hub:OWNER/NAME@REVISION takes no PATH: it becomes the next version of --task, as if you had pushed it, and
    its commit is kept in the lineage. The options from --template on say what its files do not.
    """
    metadata = _metadata(**said)
    if source.startswith(PREFIX):
        if path is not None or version is not None or format is not None:
            raise click.UsageError(f"{PREFIX}... goes to the server, without PATH, --version and --format.")
        _tell(session, pull_from_hub(session, source, task, **metadata))
        return
    if path is None:
        raise click.UsageError("Missing argument 'PATH'.")
    if task is not None or any(value is not None for value in metadata.values()):
        raise click.UsageError(f"--task, --template and what follows are for {PREFIX}... only.")
    format = format or format_of(path)
    with session.client() as client:
        saved = client.tasks.pull(source, path, version=version, format=format)
    if session.as_json:
        print_json({"path": str(saved), "format": format})
    else:
        click.echo(f"saved to {saved}")


def _tell(session: Session, version: Version) -> None:
    if session.as_json:
        print_json(version)
        return
    name = clean(f"{version.task}@{version.version}")
    pointing = f", now {', '.join(version.aliases)}" if version.aliases else ""
    click.echo(f"{name} {'was there already' if version.created is False else 'created'}{clean(pointing)}")
    for note in version.notes:
        click.echo(f"note: {clean(note)}", err=True)
