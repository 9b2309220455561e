"""Requests that this process's own console sends, without a network in between.

They may bring a session's token in place of a key. Nobody else's may: what marks them is a key of the ASGI
scope, which no byte of a request can set.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_MARK = "chorus.in_process"
_SESSION = "Bearer cs_"


class InProcess:
    """The API as the console asks it.

    Args:
        app: the API.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, _MARK: True}, receive, send)


def session_token(scope: Scope, authorization: str | None) -> str | None:
    """The session's token that a request of the console brings; None for any other request."""
    if scope.get(_MARK) is not True or authorization is None or not authorization.startswith(_SESSION):
        return None
    return authorization.removeprefix("Bearer ")
