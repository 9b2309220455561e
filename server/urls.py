"""URLs that a setting or a request names."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_VISIBLE = re.compile(r"[!-~]+", re.ASCII)


def split_http_url(url: str) -> SplitResult:
    """The parts of an `http://` or `https://` URL with a host, written in visible ASCII characters.

    What every parser reads alike: `urlsplit` drops tabs and newlines silently, and others do not.

    Raises:
        ValueError: it is none; the message is the end of a sentence that begins with its name.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    if not _VISIBLE.fullmatch(url):
        raise ValueError(
            "must hold no spaces, control characters or letters beyond ASCII: percent-encode them"
        )
    try:
        parts = urlsplit(url)
        found = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address that is none
        found = False
    if not found or "\\" in url:
        raise ValueError("must name a host, and a port only as a number, as in https://host:8443/folder/file")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not name a user or a password")
    return parts
