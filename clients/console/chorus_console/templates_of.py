"""What can be seen of a template without a server."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}", re.ASCII)


def fields_of(template: str) -> list[str]:
    """The fields of a template, each once, in order."""
    return list(dict.fromkeys(match[1] for match in _NAME.finditer(template) if match[1]))


def filled(template: str, values: Mapping[str, str], most: int) -> str:
    """The text that a template becomes; a field without a value stays as it is.

    Args:
        most: characters, after which it is cut off. No more are made.
    """
    parts: list[str] = []
    left, at = most, 0
    for match in _NAME.finditer(template):
        value = match[0][0] if match[1] is None else values.get(match[1], match[0])
        for part in (template[at : match.start()], value):
            parts.append(part[:left])
            left -= len(parts[-1])
        if left == 0:
            break
        at = match.end()
    return "".join((*parts, template[at : at + left]))
