"""URLs in settings and requests."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_VISIBLE = re.compile(r"[!-~]+", re.ASCII)


def split_http_url(url: str) -> SplitResult:
    """The parts of an `http://` or `https://` URL that has a host and only visible ASCII characters.

    Every parser reads such a URL alike; others may not: `urlsplit`, for one, silently drops tabs and
    newlines.

    Raises:
        ValueError: it is not such a URL. The message continues a sentence that begins with the URL's name.
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
    except ValueError:  # the port or the address is not valid
        found = False
    if not found or "\\" in url:
        raise ValueError("must name a host, and a port only as a number, as in https://host:8443/folder/file")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not name a user or a password")
    return parts
