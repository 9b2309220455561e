"""Every setting of the server, declared once, with a file for each group. Flags, variables, the settings file
and docs/settings.md all come from here.

A value comes from the first of these that has it: a flag of `chorus serve`, an environment variable
(`CHORUS_` and the name in capitals), a TOML file (`--config` or `CHORUS_CONFIG`), the default. The name is
the same everywhere; in the file it stands under its group. Units are in the names.
"""

from chorus_server.settings.http import DEPRECATED
from chorus_server.settings.load import check_bind, load_settings
from chorus_server.settings.removed import REMOVED, removal
from chorus_server.settings.store import STORE_SETTINGS
from chorus_server.settings.whole import (
    GROUPS,
    Settings,
    flag_of,
    group_of,
    is_loopback,
    title_of,
    variable_of,
)

__all__ = [
    "DEPRECATED",
    "GROUPS",
    "REMOVED",
    "STORE_SETTINGS",
    "Settings",
    "check_bind",
    "flag_of",
    "group_of",
    "is_loopback",
    "load_settings",
    "removal",
    "title_of",
    "variable_of",
]
