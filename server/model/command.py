"""What every command on models stands behind: our errors as one sentence. No JAX, nothing but click."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from server.errors import ChorusError

Command = Callable[..., None]


def stated(command: Command) -> Command:
    """Our errors become one sentence on standard error and exit code 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ChorusError as error:
            raise click.ClickException(error.message) from error

    return run
