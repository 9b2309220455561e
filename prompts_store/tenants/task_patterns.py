"""Patterns of names: which tasks and ensembles a key may name.

A name in which each `*` stands for any number of any characters, none included: `sst2`, `sentiment-*`,
`*-v2`, `eu.*.topics`. Nothing else is special. Without a tenant, a pattern is of names of the key's own, as a
reference is; what others share is named with its owner: `acme/sst2`, `acme/*`. There are no versions and
aliases in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from prompts_store.errors import InvalidError
from prompts_store.names import MAX_NAME_CHARACTERS
from prompts_store.text import shown

MAX_PATTERNS = 64

_PATTERN = re.compile(r"([a-z0-9._*-]{1,64}/)?[a-z0-9._*-]{1,64}", re.ASCII)


def check_patterns(patterns: object, *, field: str = "tasks") -> tuple[str, ...] | None:
    """The patterns, each once, in their order; None stays None.

    Raises:
        InvalidError: `invalid_pattern`, with the field or the pattern's path.
    """
    if patterns is None:
        return None
    if isinstance(patterns, str | bytes) or not isinstance(patterns, Sequence):
        raise InvalidError(f"{field} is a list of patterns.", field=field, code="invalid_pattern")
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        raise InvalidError(
            f"{field} has {len(patterns)} patterns; give 1 to {MAX_PATTERNS}, or leave it out for any task.",
            field=field,
            code="invalid_pattern",
        )
    for i, pattern in enumerate(patterns):
        if not (isinstance(pattern, str) and _PATTERN.fullmatch(pattern)):
            raise InvalidError(
                f"{shown(pattern)} is not a pattern of names: use 1 to {MAX_NAME_CHARACTERS} lower-case "
                f"letters, digits, '.', '_', '-' and '*', which stands for any characters, and before "
                f"them 'tenant/' for what another tenant shares.",
                field=f"{field}.{i}",
                code="invalid_pattern",
            )
    return tuple(dict.fromkeys(patterns))


def matches_any(patterns: Iterable[str] | None, name: str, *, owner: str = "", tenant: str = "") -> bool:
    """Whether one of the patterns fits a whole name; without patterns, every name does.

    Args:
        owner: the tenant whose name it is.
        tenant: the key's, which a pattern without a tenant means.
    """
    return patterns is None or any(_fits(pattern, name, owner, tenant) for pattern in patterns)


def _fits(pattern: str, name: str, owner: str, tenant: str) -> bool:
    of, slash, rest = pattern.rpartition("/")
    return _matches(rest, name) and (_matches(of, owner) if slash else owner == tenant)


def _matches(pattern: str, name: str) -> bool:
    """Each piece at its first place after the one before: no going back, whatever the pattern."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, last = rest
    end = len(name) - len(last)
    if not (name.startswith(first) and name.endswith(last) and len(first) <= end):
        return False
    at = len(first)
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
