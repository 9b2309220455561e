"""Every setting of the server, once, a file for each group: what flags, variables, the settings file and
docs/settings.md have in common.

A value comes from, first match wins: a flag of `chorus serve`, an environment variable (`CHORUS_` and the
name in capitals), a TOML file (`--config` or `CHORUS_CONFIG`), the default. The name is the same everywhere;
in the file it stands under its group. Units are in the names.
"""

from server.settings.load import load_settings
from server.settings.removed import REMOVED, removal
from server.settings.whole import GROUPS, Settings, flag_of, group_of, is_loopback, title_of, variable_of

__all__ = [
    "GROUPS",
    "REMOVED",
    "Settings",
    "flag_of",
    "group_of",
    "is_loopback",
    "load_settings",
    "removal",
    "title_of",
    "variable_of",
]
