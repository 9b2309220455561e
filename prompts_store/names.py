"""Names of tenants, tasks, ensembles and aliases.

Only lower case is allowed, so that no two names differ by case alone: on some disks they would be one file,
under some database collations one row, and to people one word.
"""

from __future__ import annotations

import re

from prompts_store.errors import InvalidError
from prompts_store.text import shown

MAX_NAME_CHARACTERS = 64
LIVE = "live"
AFTER_NAMES = "\x7f"
"""Sorts after every name that begins alike, if it is put behind the beginning."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII)
_PREFIX = re.compile(r"[a-z0-9._-]{0,64}", re.ASCII)


def check_name(name: object, *, field: str) -> str:
    """Return the name if it is valid.

    Raises:
        InvalidError: `invalid_name`, with `field`.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise InvalidError(
        f"{shown(name)} is not a name: use 1 to {MAX_NAME_CHARACTERS} lower-case letters, digits, '.', "
        f"'_' and '-', and start with a letter or a digit.",
        field=field,
        code="invalid_name",
    )


def check_alias(alias: object, *, field: str = "alias") -> str:
    """Return the alias if it is valid. It starts with a letter, so that no alias looks like a version number.

    Raises:
        InvalidError: `invalid_alias`, with `field`.
    """
    if isinstance(alias, str) and _ALIAS.fullmatch(alias):
        return alias
    raise InvalidError(
        f"{shown(alias)} is not an alias: use 1 to {MAX_NAME_CHARACTERS} lower-case letters, digits, '.', "
        f"'_' and '-', and start with a letter, as in 'canary'.",
        field=field,
        code="invalid_alias",
    )


def check_prefix(prefix: object, *, field: str = "prefix") -> str:
    """Return the beginning of a name, which may be empty.

    Raises:
        InvalidError: `invalid_prefix`, with `field`.
    """
    if isinstance(prefix, str) and _PREFIX.fullmatch(prefix):
        return prefix
    raise InvalidError(
        f"{shown(prefix)} cannot begin a name: use lower-case letters, digits, '.', '_' and '-', "
        f"{MAX_NAME_CHARACTERS} at most.",
        field=field,
        code="invalid_prefix",
    )
