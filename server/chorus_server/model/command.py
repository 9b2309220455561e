"""What all commands on models share: one-sentence errors, finite numbers. It needs no JAX, only click."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import click

from chorus_server.errors import ChorusError, startup_message

Command = Callable[..., None]
# The types in which a model computes, as every option spells them, and their names in NumPy.
DTYPES = {"f32": "float32", "bf16": "bfloat16"}


class Finite(click.FloatRange):
    """A range that excludes `nan`, which is neither below nor above anything, and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number. Raises click.BadParameter."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


class Spelled(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """One of the keys of `names`, converted to its value. The value itself is accepted too."""

    name = "choice"

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def spelling(self, value: str) -> str:
        """The key of a value."""
        return next(name for name, meant in self._names.items() if meant == value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """`[f32|bf16]`."""
        return f"[{'|'.join(self._names)}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value for an argument. Raises click.BadParameter."""
        found = self._names.get(value, value)
        if found not in self._names.values():
            self.fail(f"{value!r} is not one of {', '.join(self._names)}.", param, ctx)
        return str(found)


def stated(command: Command) -> Command:
    """Turn our errors and those of files into one sentence on standard error and exit code 1."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except ChorusError as error:
            raise click.ClickException(error.message) from error
        except OSError as error:
            raise click.ClickException(startup_message(error)) from error

    return run
