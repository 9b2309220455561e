"""`chorus serve`. Its options are generated from the table of settings; JAX is imported when the command
runs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from chorus_server.errors import ChorusError, startup_message
from chorus_server.kept_memory import keep_freed_memory
from chorus_server.log import Log, process_log
from chorus_server.settings import (
    DEPRECATED,
    GROUPS,
    Settings,
    flag_of,
    group_of,
    load_settings,
    removal,
    title_of,
    variable_of,
)
from chorus_server.settings.values import written
from prompts_store.errors import StoreError

_HELP = """Serve one frozen T5 and its soft prompts over HTTP.

Each option is also an environment variable (in brackets) and, under the heading shown here, a name in the
TOML file that --config names. A flag overrides the environment, and the environment overrides the file.
"""


class SettingsCommand(click.Command):
    """A command whose options are settings. It lists them by group, and explains any setting that was
    removed."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str | None, list[tuple[str, str]]] = {None: []} | {group: [] for group in GROUPS}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                records[group_of(param.name or "")].append(record)
        for group, found in records.items():
            heading = "Options" if group is None else f"[{group}] {title_of(group)}"
            if found:
                with formatter.section(heading):
                    formatter.write_dl(found)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.lstrip("-").removeprefix("no-").replace("-", "_")
            told = removal(name)
            if told is None:
                raise
            raise click.UsageError(f"{told}.", ctx) from None


def config_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`--config`, and the options of these settings, in order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = _option_of(name)(command)
        path = click.Path(path_type=Path)
        return click.option("--config", type=path, default=None, help="TOML file. [CHORUS_CONFIG]")(command)

    return add


def _option_of(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    field = Settings.model_fields[name]
    default = shown_default(field)
    text = f"{field.description} [{variable_of(name)}" + (f"; default {default}]" if default else "]")
    text = text.replace("`", "")
    if field.annotation in (bool, bool | None):
        flag = flag_of(name)
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    return click.option(flag_of(name), name, default=None, metavar=_metavar(field), help=text)


def shown_default(field: FieldInfo) -> str:
    """A setting's default in command-line form; empty if there is none."""
    value = field.default
    if field.is_required() or value is None:
        return ""
    if isinstance(value, tuple):
        return written(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metavar(field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    parts = [get_args(part)[0] if get_origin(part) is Annotated else part for part in (kind, *get_args(kind))]
    if any(get_origin(part) is tuple for part in parts):
        return "LIST"
    for name, shown in ((Path, "PATH"), (int, "N"), (float, "NUMBER")):
        if name in parts:
            return shown
    return "TEXT"


@click.command(cls=SettingsCommand, help=_HELP)
@config_options(*sorted(Settings.model_fields, key=lambda name: name in DEPRECATED))
def serve(config: Path | None, **flags: Any) -> None:
    keep_freed_memory()
    with readable_errors():
        settings = load_settings(flags, config)
        with command_log("chorus", settings) as log:
            with importing():
                from chorus_server.app import build_app
                from chorus_server.process import Process, end_with

            end_with(lambda: Process(build_app(settings, lambda: log.lost), log.say).run())


@contextmanager
def command_log(name: str, settings: Settings) -> Iterator[Log]:
    """The log of a command that runs until told to end. In JSON, the error that ends it is a line too."""
    as_json = settings.log_format == "json"
    with process_log(name, settings.log_level, as_json) as log:
        try:
            yield log
        except (ChorusError, StoreError, OSError) as error:
            if not as_json:
                raise
            log.write(startup_message(error), "error")
            raise SystemExit(1) from None


@contextmanager
def importing() -> Iterator[None]:
    """Switch off garbage collection while modules are imported, and exclude what they created from later
    collections. Nearly all of it stays alive: scanning it again and again takes a fifth of the time of
    importing, and a second of the processor's time while a model loads."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn an error of ours into one sentence on the command line, and exit code 1."""
    try:
        yield
    except (ChorusError, StoreError, OSError) as error:
        raise click.ClickException(startup_message(error)) from None
