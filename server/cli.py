"""`chorus serve`. Its options are made from the settings' table; JAX is imported when the command runs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from prompts_store.errors import StoreError
from server.errors import ChorusError, startup_message
from server.settings import Settings, flag_of, load_settings, variable_of

_HELP = """Serve one frozen T5 and its soft prompts over HTTP.

Each option is also an environment variable (in brackets) and a name in the TOML file that --config names. A
flag goes before the environment, the environment before the file.
"""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for name in reversed(Settings.model_fields):
        command = option_of(name)(command)
    return command


def option_of(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option of a setting."""
    field = Settings.model_fields[name]
    default = shown_default(field)
    text = f"{field.description} [{variable_of(name)}" + (f"; default {default}]" if default else "]")
    text = text.replace("`", "")
    if field.annotation is bool:
        flag = flag_of(name)
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    return click.option(flag_of(name), name, default=None, metavar=_metavar(field), help=text)


def shown_default(field: FieldInfo) -> str:
    """A setting's default as it is written on the command line; empty when there is none."""
    value = field.default
    if field.is_required() or value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join("x".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metavar(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    names = {part.__name__ for part in (*get_args(kind), kind) if isinstance(part, type)}
    for name, shown in (("Path", "PATH"), ("int", "N"), ("float", "NUMBER"), ("tuple", "LIST")):
        if name in names:
            return shown
    return "LIST" if get_origin(kind) is tuple else "TEXT"


def set_log_levels(level: str) -> None:
    """Our own logs from `level` up; those of libraries only from `warning` up, unless it is `debug`."""
    own = logging.getLevelName(level.upper())
    logging.getLogger().setLevel(own if own == logging.DEBUG else max(own, logging.WARNING))
    for name in ("chorus", "server", "prompts_store", "uvicorn"):
        logging.getLogger(name).setLevel(own)


@click.command(help=_HELP)
@click.option("--config", type=click.Path(path_type=Path), default=None, help="TOML file. [CHORUS_CONFIG]")
@_options
def serve(config: Path | None, **flags: Any) -> None:
    started = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"chorus [{time.monotonic() - started:7.1f} s] {line}", err=True)

    try:
        settings = load_settings(flags, config)
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        set_log_levels(settings.log_level)
        from server.app import build_app
        from server.process import Process

        code = Process(build_app(settings), say).run()
    except (ChorusError, StoreError) as error:
        raise click.ClickException(startup_message(error)) from None
    sys.exit(code)
