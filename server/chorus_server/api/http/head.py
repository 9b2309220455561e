"""HEAD works wherever GET does: the same status and headers, and no body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Sends the request to the routes as a GET, and sends back what comes before the body. A stream ends
    there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        begun = False

        async def receive_or_leave() -> Message:
            """To a stream it looks as if the caller left."""
            return {"type": "http.disconnect"} if begun else await receive()

        async def send_head(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                await send(message)

        inner = {**scope, "method": "GET"}
        try:
            await self._app(inner, receive_or_leave, send_head)
        finally:
            scope["route"] = inner.get("route")  # for the access log
        if begun:
            await send({"type": "http.response.body"})
