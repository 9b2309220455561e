"""What comes to a replica through somebody else's HTTP server."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from chorus_server.api.http.context import open_context
from chorus_server.api.http.errors import error_response
from chorus_server.errors import NotFoundError


class Front:
    """The application without the header `X-Request-Id`, because the proxy adds the one that it gave the
    request; and without `/metrics`, where each scrape would read another replica.

    Args:
        app: answers everything else.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    @property
    def routes(self) -> list[Any]:
        """Ray names a request in its own metrics by these."""
        return self._app.routes

    @property
    def router(self) -> Any:
        """As `routes`."""
        return self._app.router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_without_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                del MutableHeaders(scope=message)["x-request-id"]
            await send(message)

        if scope["path"].removeprefix(scope.get("root_path", "")) == "/metrics":
            error = NotFoundError(
                "Every time another replica would answer here: ask each replica itself, at the first free "
                "port after CHORUS_HTTP_PORT on its machine."
            )
            await error_response(error, open_context(scope).request_id)(scope, receive, send)
            return
        await self._app(scope, receive, send_without_id)
