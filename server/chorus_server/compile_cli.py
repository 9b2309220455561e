"""`chorus compile`: fills the compile cache and ends. Its options are settings of `chorus serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chorus_server.cli import SettingsCommand, command_log, config_options, importing, readable_errors
from chorus_server.log import Say
from chorus_server.settings import GROUPS, Settings, load_settings

COMPILE_SETTINGS = (*GROUPS["engine"].model_fields, "data_dir", "log_level", "log_format")
"""Settings that decide what is compiled, and where it is kept."""

_HELP = """Compile every program that `chorus serve` with these settings needs, keep them, and end.

Run it where an image is built, in a job, or on any replica: a server with the same settings, the same version
of Chorus and the same kind of machine then starts without compiling. Programs are kept below
`compile_cache_dir` in a folder named after processor, cores, accelerator, jaxlib and type of the matrices;
another kind of machine compiles anew, into a folder of its own. Several of these commands, and servers, may
share the folder: each program is compiled once.

Each option is also an environment variable (in brackets) and, under the heading shown here, a name in the
TOML file that --config names.
"""


@click.command("compile", cls=SettingsCommand, help=_HELP)
@config_options(*COMPILE_SETTINGS)
def compile_command(config: Path | None, **flags: Any) -> None:
    with readable_errors():
        settings = load_settings(flags, config, listening=False)
        with command_log("chorus compile", settings) as log:
            with importing():
                from chorus_server.process import end_with

            end_with(lambda: fill_cache(settings, log.say))


def fill_cache(settings: Settings, say: Say) -> int:
    """Compile. Returns the exit code.

    Raises:
        ChorusError: the folder cannot be written, or the model cannot be read or does not fit.
    """
    from chorus_server.app import compile_executor, keep_programs, ladder_of, load
    from chorus_server.embedded import model_source
    from chorus_server.engine.executor import CompileWatch
    from chorus_server.errors import InvalidInputError
    from chorus_server.storage import can_keep

    ladder_of(settings)
    model_source(settings.model)
    kept = keep_programs(settings, say)
    if not (kept.trusted and can_keep(kept.folder)):
        what = "cannot be written" if kept.trusted else "is not trusted"
        raise InvalidInputError(
            f"{kept.folder} {what}: choose another place, or make this one this user's and writable.",
            field="compile_cache_dir",
        )
    compile_executor(settings, load(settings, say), CompileWatch().start(), kept, say)
    say(f"the programs are in {kept.folder}")
    return 0
