"""What can be seen of a template without a server."""

from __future__ import annotations

import re

_NAME = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}", re.ASCII)


def fields_of(template: str) -> list[str]:
    """The fields of a template, each once, in order."""
    return list(dict.fromkeys(match[1] for match in _NAME.finditer(template) if match[1]))


def filled(template: str, values: dict[str, str]) -> str:
    """The text that a template becomes; a field without a value stays as it is."""

    def put(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        return values.get(match[1], match[0])

    return _NAME.sub(put, template)
