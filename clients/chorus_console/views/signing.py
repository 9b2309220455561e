"""Signing in and out."""

from __future__ import annotations

import contextlib

from starlette.responses import Response

from chorus import UnauthenticatedError
from chorus_console.door import Visit, own_path


async def show(visit: Visit) -> Response:
    """The form that takes a key."""
    query = visit.request.query_params
    why = "Your session is over. Sign in again." if query.get("over") else ""
    return visit.open_page("sign_in.html", next=own_path(query.get("next", "")), why=why)


async def enter(visit: Visit) -> Response:
    """Make a session of a key. The key is in no answer."""
    key, to = await visit.text("key"), own_path(await visit.text("next"))
    dialog = visit.is_fragment
    if not (key.isascii() and key.isprintable()) or " " in key or not 0 < len(key) <= 512:
        return _again(visit, to, "A key is one word, such as ck_… Paste the whole of it.")
    try:
        await visit.client_of(key).me()
    except UnauthenticatedError:
        return _again(visit, to, "That key is not valid. It may have been revoked, or has expired.")
    visit.token, visit.lasts = await visit.sessions.open(key, visit.address)
    return visit.open_page("signed_in.html") if dialog else visit.go(to)


def _again(visit: Visit, to: str, why: str) -> Response:
    if visit.is_fragment:
        return visit.open_page("sign_in_dialog.html", 400, why=why)
    return visit.open_page("sign_in.html", 400, next=to, why=why)


async def leave(visit: Visit) -> Response:
    """End the session, here and in the database."""
    with contextlib.suppress(UnauthenticatedError):
        await visit.sessions.end(visit.token)
    visit.token = visit.fresh()
    return visit.go("/console/sign-in")
