"""The `chorus` group: its own commands, and those that other installed parts offer."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

import click

from chorus.cli import bench, ensembles, files, inference, service, tasks, tune, usage
from chorus.cli.output import print_error
from chorus.cli.session import merge, session_options
from chorus.config import URL_VARIABLE
from chorus.errors import ChorusError, InvalidArgumentError

ENTRY_POINT_GROUP = "chorus.commands"
DISTRIBUTION = "chorus-prompts"
SHORT_HELP = {
    "serve": "Load a base model and answer over HTTP (extra: server).",
    "models": "Describe and convert base models (extra: server).",
    "pretrain": "Make a base model from text (extra: server).",
    "adapt": "Train a base model further: LM adaptation (extra: server).",
    "store": "Check, collect and adopt a data folder (extra: server).",
    "worker": "Run tuning jobs in a separate process (extra: server).",
}
"""Help of this distribution's entry points. Importing them to ask would import the server."""


class Root(click.Group):
    """Finds the commands of other parts by entry point. It imports them only when they are run, as they may
    need JAX."""

    def _offered(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Own commands and offered ones."""
        return sorted({*super().list_commands(ctx), *self._offered()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """An own command, or an offered one, which is imported now."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        point = self._offered().get(cmd_name)
        return None if point is None else load(point)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        rows: list[tuple[str, str]] = []
        for name in self.list_commands(ctx):
            own = super().get_command(ctx, name)
            rows.append(
                (name, own.get_short_help_str(90) if own else SHORT_HELP.get(name, "An installed extension."))
            )
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. An error is one sentence on standard error, and the exit code is 1, or 2 if the
        command was not understood.
        """
        try:
            return super().invoke(ctx)
        except ChorusError as error:
            print_error(error)
            ctx.exit(2 if isinstance(error, InvalidArgumentError) else 1)


def load(point: EntryPoint) -> click.Command:
    """Import an offered command.

    Raises:
        ClickException: something that the command needs is not installed.
    """
    try:
        command = point.load()
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"`chorus {point.name}` needs the server, and {error.name} is not installed. "
            "Install it from a checkout of Chorus: pip install '.[server]'"
        ) from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"The extension {point.value} is not a command.")
    return command


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(_version(), prog_name="chorus")
@session_options
@click.pass_context
def chorus(context: click.Context, /, **given: Any) -> None:
    """One frozen T5, many soft prompts, one batch.

    \b
    chorus serve
    chorus generate sentiment "a joyless mess"
    chorus tasks push sst2 prompt.safetensors --label negative --label positive
    chorus classify sst2 "A warm, patient film."
    """
    given["url"] = given["url"] or os.environ.get(URL_VARIABLE)
    context.obj = merge(None, given)


for command in (
    tasks.tasks,
    files.files,
    tune.tune,
    inference.generate,
    inference.classify,
    ensembles.ensemble,
    service.status,
    usage.usage,
    bench.bench,
):
    chorus.add_command(command)


def main() -> None:
    """The console script."""
    chorus(prog_name="chorus")
