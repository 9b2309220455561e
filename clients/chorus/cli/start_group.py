"""A group of commands whose name alone starts something: `chorus tune TASK TRAIN`, `chorus evaluate ...`."""

from __future__ import annotations

import click


class StartGroup(click.Group):
    """A first word that is not a command is an argument of `start`, which need not be written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `start` if the first word is not a command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["start", *args]
        return super().parse_args(ctx, args)
