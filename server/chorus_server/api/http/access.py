"""One access log line and one observation in the request histogram for each request, and the outermost
middleware, which makes both."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chorus_server.api.http.context import RequestContext, open_context
from chorus_server.api.http.traces import Traces
from chorus_server.api.metrics import ApiMetrics
from chorus_server.awake import awake
from chorus_server.log import Tally

LOG = logging.getLogger("chorus.access")

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Machines ask for these every few seconds; they are logged at debug, unless a key was refused."""

_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})


class AccessLog:
    """Counts, times and logs each request by its route template; never the path, content, query or key.

    Args:
        metrics: every answered request is counted here.
        lines: whether to write log lines.
        traces: takes the spans of requests; None if nothing is recorded.
    """

    def __init__(self, metrics: ApiMetrics, lines: bool = True, traces: Traces | None = None) -> None:
        self._metrics = metrics
        self._lines = lines
        self._traces = traces
        self._refused = Tally(LOG, logging.INFO, "refused unread")

    def begin(self, scope: Scope) -> RequestContext:
        """The context of a request that has just come."""
        context = open_context(scope)
        if self._traces is not None:
            context.trace = self._traces.begin(Headers(scope=scope).getlist("traceparent"))
        return context

    def refused(
        self, method: str, template: str, status: int, tenant: str, seconds: Sequence[float], last_id: str
    ) -> None:
        """Note requests that were refused before they were read. In an overload there are thousands, so they
        share a line.

        Args:
            seconds: that each took.
            last_id: the id of the last one.
        """
        for each in seconds:
            self._metrics.request_seconds.observe(each, template, str(status))
        if self._lines:
            self._refused.note(f"{method} {template} {status} tenant={tenant}", last_id, len(seconds))

    def tell_refused(self) -> bool:
        """Write the line about refused requests, at most one a second. Returns whether all have been
        reported."""
        return self._refused.write(time.monotonic())

    def write(self, method: str, template: str, status: int, context: RequestContext) -> None:
        """Log a request that was answered, or whose caller left."""
        seconds = awake() - context.started
        self._metrics.request_seconds.observe(seconds, template, str(status))
        method = method if method in _METHODS else "?"
        quiet = template in PROBES and status not in (401, 403)
        if self._traces is not None and context.trace is not None and not quiet:
            self._traces.end(context.trace, method, template, status, context.started, context.names)
        if self._lines:
            measured = {"method": method, "route": template, "status": status, "seconds": round(seconds, 6)}
            LOG.log(
                logging.DEBUG if quiet else logging.INFO,
                "%s %s %d %.1fms tenant=%s id=%s",
                method,
                template,
                status,
                seconds * 1000,
                context.principal.tenant if context.principal else "-",
                context.request_id,
                extra={**context.names, **measured},
            )


class AccessMiddleware:
    """Gives each request its id, logs it, and releases the memory of its body.

    Args:
        app: the rest of the server.
        log: called for every request.
    """

    def __init__(self, app: ASGIApp, log: AccessLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = self._log.begin(scope)
        status = 499

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = context.request_id
                for name, value in context.headers.items():
                    headers[name] = value
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # the answer is made further out; see `install_error_handlers`
            status = 500
            raise
        finally:
            context.settle()
            if context.body is not None:
                context.body.release()
            template = getattr(scope.get("route"), "path", None) or "unmatched"
            self._log.write(scope["method"], template, status, context)
