"""Requests that web pages make a browser send are refused before anything of them is read.

A browser can reach a server on loopback on behalf of every page that it shows: through a form or a script of
another site, or through a name of that site which suddenly means 127.0.0.1 (DNS rebinding). Such a page has
no key, but where none is needed, its requests would be as good as anybody's.
"""

from __future__ import annotations

import re

from fastapi import Request

from chorus_server.api.services import Services
from chorus_server.errors import ForbiddenError
from chorus_server.settings import is_loopback
from chorus_server.tenancy.principal import Principal

_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})  # `none`: the user asks, not a page
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::[0-9]{1,5})?")


def refuse_pages(request: Request, services: Services, caller: Principal) -> None:
    """Raise unless a program sent the request, or a page of this server itself.

    Raises:
        ForbiddenError: `unknown_host`, where the caller needs no key and the server listens on loopback, yet
        is asked by a name that is none of loopback; `foreign_origin`, where a page of another origin asks
        for a change.
    """
    refuse_host(request.headers.getlist("host"), services, caller)
    refuse_foreign(request)


def refuse_foreign(request: Request) -> None:
    """Raise ForbiddenError `foreign_origin` where a page of another origin asks for a change."""
    if request.method not in _HARMLESS and _is_foreign(request):
        raise ForbiddenError(
            "A web page of another site asked for a change: only programs and pages of this server may do "
            "that.",
            field="origin",
            code="foreign_origin",
        )


def refuse_host(hosts: list[str], services: Services, caller: Principal) -> None:
    """Raise where the caller needs no key and the server listens on loopback, yet is asked by another name.

    Args:
        hosts: the request's `Host` headers.

    Raises:
        ForbiddenError: `unknown_host`.
    """
    exposed = services.settings.is_loopback and caller.keyless
    if exposed and not _names_loopback(hosts):
        raise ForbiddenError(
            "This server serves this machine only and does not answer to that name: ask for localhost or "
            "127.0.0.1, or let it listen elsewhere with a key.",
            field="host",
            code="unknown_host",
        )


def _names_loopback(hosts: list[str]) -> bool:
    named = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
    return named is not None and is_loopback(named[1] or named[2])


def _is_foreign(request: Request) -> bool:
    """If a browser sends `Sec-Fetch-Site`, it decides, because a proxy on the way may have rewritten
    `Host`."""
    sites = request.headers.getlist("sec-fetch-site")
    if sites:
        return not _OWN.issuperset(sites)
    host = request.headers.get("host", "")
    return not all(_is_same(origin, host) for origin in request.headers.getlist("origin"))


def _is_same(origin: str, host: str) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    return authority != "" and authority.removesuffix(port) == host.lower().removesuffix(port)
