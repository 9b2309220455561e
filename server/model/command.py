"""What every command on models stands behind: errors as one sentence, finite numbers. No JAX, only click."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import click

from server.errors import ChorusError, startup_message

Command = Callable[..., None]


class Finite(click.FloatRange):
    """A range without `nan`, which is neither below nor above anything, and without `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises click.BadParameter."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


def stated(command: Command) -> Command:
    """Our errors and those of files become one sentence on standard error and exit code 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ChorusError as error:
            raise click.ClickException(error.message) from error
        except OSError as error:
            raise click.ClickException(startup_message(error)) from error

    return run
