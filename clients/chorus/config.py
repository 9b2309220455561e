"""Where the server is, and which key to send."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import httpx2

from chorus.errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "CHORUS_URL"
KEY_VARIABLE = "CHORUS_API_KEY"
KEY_FILE_VARIABLE = "CHORUS_API_KEY_FILE"
MAX_KEY_CHARACTERS = 4096
TOTAL_SECONDS = 3600.0
LONGEST_SECONDS = 31_536_000
"""A year: sockets cannot wait for ever longer."""
MAX_ANSWER_BYTES = 128 * 1024 * 1024
"""Twice the largest prompt that a server accepts by default. No page of a list is as large."""


def find_url(base_url: str | None) -> str:
    """The URL to use: the argument, else CHORUS_URL, else this machine."""
    return base_url if base_url is not None else os.environ.get(URL_VARIABLE) or DEFAULT_URL


def parse_url(base_url: str) -> httpx2.URL:
    """A base URL that requests can be sent to.

    Raises:
        ConfigurationError: it is not an http or https URL with a host, or it has credentials, a query or a
            fragment.
    """
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigurationError(f"The URL {base_url!r} cannot be read: {error}.") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(
            f"The URL {base_url!r} must be like {DEFAULT_URL}: http or https, and a host."
        )
    if url.userinfo or url.query or url.fragment:
        raise ConfigurationError("The URL must have no user, query or fragment; pass the key as api_key.")
    return url


def is_loopback(url: httpx2.URL) -> bool:
    """Whether the host is this machine."""
    if url.host == "localhost" or url.host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return False


def read_key_file(path: str | Path) -> str:
    """The key in a file: its text without surrounding white space.

    Raises:
        ConfigurationError: the file is unreadable or empty, or does not contain a key.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_KEY_CHARACTERS + 2).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise ConfigurationError(f"The key file {str(path)!r} cannot be read: {reason}.") from error
    return check_key(text.strip(), f"The key file {str(path)!r}")


def check_key(key: str, where: str) -> str:
    """The key itself. Errors never show it."""
    if not key:
        raise ConfigurationError(f"{where} is empty; it must contain the API key.")
    if len(key) > MAX_KEY_CHARACTERS or not all(" " < character <= "~" for character in key):
        raise ConfigurationError(
            f"{where} does not contain an API key, which is one word of printable ASCII."
        )
    return key


def find_key(api_key: str | None) -> str | None:
    """The key to use: the argument, else CHORUS_API_KEY, else the text of CHORUS_API_KEY_FILE, else none.

    An empty argument means no key, whatever the environment says.
    """
    if api_key is not None:
        return check_key(api_key, "api_key") if api_key else None
    from_variable = os.environ.get(KEY_VARIABLE)
    if from_variable:
        return check_key(from_variable, KEY_VARIABLE)
    file = os.environ.get(KEY_FILE_VARIABLE)
    return read_key_file(file) if file else None
