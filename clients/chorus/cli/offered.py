"""Groups of commands to which other installed parts may add theirs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click


class OfferingGroup(click.Group):
    """Finds the commands of other parts by entry point. It imports them only when they are run, as they may
    need JAX.

    Args:
        offers: the group of entry points, `chorus.commands` and below: those in `chorus.commands.tenants` are
            run as `chorus tenants ...`.
        offered_help: a line of help for each command that is known to be offered. To import a command in
            order to ask it would import the server.
    """

    def __init__(self, *args: Any, offers: str, offered_help: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._offers = offers
        self._offered_help = offered_help

    def _offered(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self._offers)}

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
            offered = self._offered_help.get(name, "An installed extension.")
            rows.append((name, own.get_short_help_str(90) if own else offered))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def load(point: EntryPoint) -> click.Command:
    """Import an offered command.

    Raises:
        ClickException: something that the command needs is not installed.
    """
    try:
        command = point.load()
    except ModuleNotFoundError as error:
        words = point.group.replace(".commands", "").replace(".", " ")
        raise click.ClickException(
            f"`{words} {point.name}` needs the server, and {error.name} is not installed. "
            "Install it from a checkout of Chorus: pip install '.[server]'"
        ) from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"The extension {point.value} is not a command.")
    return command
