"""The settings file: TOML, with each setting under the heading of its group."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from chorus_server.errors import InvalidInputError
from chorus_server.settings.removed import removal
from chorus_server.settings.whole import GROUPS, group_of


def read_file(path: Path) -> dict[str, Any]:
    """Values by setting name, not validated yet.

    Raises:
        InvalidInputError: there is no such file, it is not TOML, or it has a name that is not a setting or
            stands under the wrong heading. The error says where each belongs.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - it answers for any name
        raise InvalidInputError(f"The settings file {path} does not exist.", field="config")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise InvalidInputError(f"The settings file {path} cannot be read: {error}", field="config") from None
    found: dict[str, Any] = {}
    problems: list[str] = []
    for heading, table in content.items():
        if heading not in GROUPS:
            problems.append(_stray(heading))
        elif not isinstance(table, dict):
            problems.append(f"write [{heading}] on a line of its own, and its settings below it")
        else:
            own = GROUPS[heading].model_fields
            problems += [_stray(name) for name in table if name not in own]
            found |= {name: value for name, value in table.items() if name in own}
    if problems:
        raise InvalidInputError(f"In the settings file {path}: {'; '.join(problems)}.", field="config")
    return found


def _stray(name: str) -> str:
    """What to do about a name that stands where no setting of that name belongs."""
    group = group_of(name)
    if group is not None:
        return f"write {name} under [{group}]"
    if (told := removal(name)) is not None:
        return told
    headings = ", ".join(f"[{each}]" for each in GROUPS)
    return f"{name[:80]!r} is neither a setting nor a group; the groups are {headings}"
