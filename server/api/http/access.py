"""Outermost middleware: a request id, one access log line, one observation of the request histogram."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.http.context import RequestContext, open_context

LOG = logging.getLogger("chorus.access")

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for every few seconds by machines; logged at debug, unless a key was refused."""

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})

Observe = Callable[[str, int, float], None]
"""Route template, status, seconds."""


class AccessMiddleware:
    """Names, times and logs each request: the route template, never the path, content, query or key. Gives
    back the memory of its body.

    Args:
        app: the rest of the server.
        observe: told of every answered request.
        log: whether to write the access log.
    """

    def __init__(self, app: ASGIApp, observe: Observe, log: bool = True) -> None:
        self._app = app
        self._observe = observe
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = open_context(scope)
        status = 499

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = context.request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # answered further out; see `install_error_handlers`
            status = 500
            raise
        finally:
            if context.body is not None:
                context.body.release()
            self._finish(scope, context, status)

    def _finish(self, scope: Scope, context: RequestContext, status: int) -> None:
        route = scope.get("route")
        template = getattr(route, "path", None) or "unmatched"
        seconds = time.monotonic() - context.started
        self._observe(template, status, seconds)
        if self._log:
            quiet = template in PROBES and status not in (401, 403)
            LOG.log(
                logging.DEBUG if quiet else logging.INFO,
                "%s %s %d %.1fms tenant=%s id=%s",
                scope["method"] if scope["method"] in _METHODS else "?",
                template,
                status,
                seconds * 1000,
                context.principal.tenant if context.principal else "-",
                context.request_id,
            )
