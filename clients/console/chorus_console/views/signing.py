"""Signing in and out."""

from __future__ import annotations

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
        me = await visit.client_of(key).me()
        if visit.session is not None:
            ended, visit.session = visit.session, None
            await visit.sessions.end(ended)
        if me.key is not None:  # else none is needed, and whatever was typed is nobody's
            visit.session = await visit.sessions.open(key, visit.address)
    except UnauthenticatedError:
        return _again(visit, to, "That key is not valid. It may have been revoked, or has expired.")
    return visit.open_page("signed_in.html") if dialog else visit.go(to)


def _again(visit: Visit, to: str, why: str) -> Response:
    if visit.is_fragment:
        return visit.open_page("sign_in_dialog.html", 400, why=why)
    return visit.open_page("sign_in.html", 400, next=to, why=why)


async def leave(visit: Visit) -> Response:
    """End the session, here and in the database. If that does not answer, it is over here all the same."""
    ended, visit.session = visit.session, None
    if ended is not None:
        await visit.sessions.end(ended)
    return visit.go("/console/sign-in")
