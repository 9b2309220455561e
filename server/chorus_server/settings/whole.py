"""The groups together: the settings of one process, and their names on the command line and elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache

from chorus_server.settings.engine import EngineSettings
from chorus_server.settings.http import HttpSettings
from chorus_server.settings.limits import LimitSettings
from chorus_server.settings.log import LogSettings
from chorus_server.settings.store import StoreSettings
from chorus_server.settings.tuning import TuningSettings
from chorus_server.settings.values import SettingsGroup

GROUPS: Mapping[str, type[SettingsGroup]] = {
    "http": HttpSettings,
    "engine": EngineSettings,
    "store": StoreSettings,
    "tuning": TuningSettings,
    "limits": LimitSettings,
    "log": LogSettings,
}
"""Groups in the order in which people read them."""

_PREFIX = "CHORUS_"
_SHORT_FLAGS = {"http_host": "host", "http_port": "port"}


class Settings(HttpSettings, EngineSettings, StoreSettings, TuningSettings, LimitSettings, LogSettings):
    """Frozen configuration of one server process.

    Build it with `load_settings`, whose errors are readable.
    """

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address that the server listens on."""
        return is_loopback(self.http_host)


def group_of(name: str) -> str | None:
    """The group of a setting; None if there is no such setting."""
    return next((group for group, members in GROUPS.items() if name in members.model_fields), None)


def title_of(group: str) -> str:
    """What the settings of a group are about, without a full stop."""
    return (GROUPS[group].__doc__ or "").partition(".")[0]


def flag_of(name: str) -> str:
    """The command-line flag of a setting, with dashes."""
    return "--" + _SHORT_FLAGS.get(name, name).replace("_", "-")


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return _PREFIX + name.upper()


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
