"""The settings of a process, read from flags, environment and file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chorus_server.errors import InvalidInputError
from chorus_server.settings.file import read_file
from chorus_server.settings.removed import REMOVED, removal
from chorus_server.settings.whole import Settings, variable_of

_CONFIG_VARIABLE = "CHORUS_CONFIG"


def load_settings(
    flags: Mapping[str, Any] | None = None, config: Path | None = None, *, listening: bool = True
) -> Settings:
    """Settings from flags, environment and file.

    Args:
        flags: values by setting name; None means that the flag was not given.
        config: TOML file; if None, `CHORUS_CONFIG` names it.
        listening: whether the process will listen on an address; if not, the rule about binding does not
            apply.

    Raises:
        InvalidInputError: a value is out of range, a name is unknown or the file is unreadable; names the
            setting or `config`.
    """
    named = os.environ.get(_CONFIG_VARIABLE)
    path = config or (Path(named) if named else None)
    given = read_file(path) if path is not None else {}
    given |= _from_environment()
    flags = {name: value for name, value in (flags or {}).items() if value is not None}
    strays = flags.keys() - Settings.model_fields.keys()
    _refuse({name: removal(name) or f"{name[:80]} is not a setting" for name in strays})
    given |= flags
    try:
        loaded = Settings(**given)
    except ValidationError as error:
        raise _readable(error) from None
    return check_settings(loaded) if listening else loaded


def _from_environment() -> dict[str, str]:
    """An empty variable counts as unset. Variables with other names are not ours."""
    _refuse(
        {
            name: f"{name} is not a setting any more, and {variable_of(name)} is set: {told}"
            for name, told in REMOVED.items()
            if os.environ.get(variable_of(name))
        }
    )
    found = {name: os.environ.get(variable_of(name)) for name in Settings.model_fields}
    return {name: value for name, value in found.items() if value}


def _refuse(problems: Mapping[str, str]) -> None:
    """Refuse names that are no settings, all at once. Raises InvalidInputError naming the first."""
    if problems:
        names = sorted(problems)
        raise InvalidInputError(f"{'; '.join(problems[name] for name in names)}.", field=names[0])


def check_settings(settings: Settings) -> Settings:
    """Check the rules between settings, about draining. Raises InvalidInputError naming the setting."""
    if settings.drain_notice_ms and settings.drain_notice_ms >= 1000 * settings.drain_seconds:
        raise InvalidInputError(
            f"drain_notice_ms is {settings.drain_notice_ms}. It is a part of drain_seconds, which is "
            f"{settings.drain_seconds:g}: shorten the notice or allow more time.",
            field="drain_notice_ms",
        )
    return settings


def check_bind(settings: Settings, *, keyed: bool) -> None:
    """The bind rule. Raises InvalidInputError naming the setting.

    Args:
        keyed: whether there is a key, in a file or in the store.
    """
    if not (keyed or settings.is_loopback or settings.insecure_bind):
        raise InvalidInputError(
            f"Refusing to listen on {settings.http_host} without a key: anybody who reaches it could use "
            "and delete every prompt. Set --operator-key-file, listen on 127.0.0.1, or accept the risk with "
            "--insecure-bind.",
            field="http_host",
        )


def _readable(error: ValidationError) -> InvalidInputError:
    problems = []
    for item in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in item["loc"]) or "settings"
        message, got = item["msg"].removeprefix("Value error, "), str(item["input"])
        shown = "" if "@" in got else f", got {got[:80]!r}"  # a URL may contain a password
        problems.append(f"{name}: {message[0].lower()}{message[1:]}{shown}")
    first = error.errors(include_url=False, include_context=False)[0]["loc"]
    return InvalidInputError("; ".join(problems) + ".", field=str(first[0]) if first else None)
