"""What a page shows or does, as a program or a terminal would ask for it."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode


@dataclass(frozen=True, slots=True)
class Same:
    """The same call in three ways. None of them has a key: all take it from CHORUS_API_KEY.

    Attributes:
        python: after `client = Client()`.
        command: for a shell.
        deed: the words of the button that makes it; empty for what the page shows.
    """

    curl: str
    python: str
    command: str
    deed: str = ""

    def doing(self, deed: str) -> Same:
        """This call, made by a button."""
        return replace(self, deed=deed)


def same(
    method: str,
    path: str,
    python: str,
    *command: str,
    body: object = None,
    **query: object,
) -> Same:
    """The ways to make one call.

    Args:
        path: of the route; a name in it may be what somebody wrote into the address of a page.
        python: the call, such as `client.tasks.list()`.
        command: the words of the command; none if there is no such command.
        body: sent as JSON; None for no body.
        query: of the route; what is None or empty is left out.
    """
    given = {name: value for name, value in query.items() if value not in (None, "")}
    url = "$CHORUS_URL" + quote(path, safe="/*") + (f"?{urlencode(given, doseq=True)}" if given else "")
    lines = [f"curl -s{'' if method == 'GET' else f' -X {method}'} {_quoted(url)}"]
    lines.append('-H "Authorization: Bearer $CHORUS_API_KEY"')
    if body is not None:
        lines += [
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
        ]
    code = f"from chorus import Client\n\nwith Client() as client:\n    {python}"
    return Same(" \\\n  ".join(lines), code, " ".join(shlex.quote(word) for word in command))


def _quoted(url: str) -> str:
    """In quotes in which `$CHORUS_URL` is still a variable; nothing else of it means anything in them."""
    return f'"{url}"'
