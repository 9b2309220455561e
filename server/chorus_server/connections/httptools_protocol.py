"""The same on httptools (llhttp, the parser of Node.js). Import this module only where httptools is
installed."""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chorus_server.connections.protocol import Bounded, Look
from chorus_server.connections.refusals import RefusedError, check_head, malformed, origin_form
from chorus_server.connections.registry import Registry


class HttptoolsConnection(Bounded, HttpToolsProtocol):
    """A connection on httptools. It reads ahead, so requests may queue behind the running one."""

    def __init__(self, registry: Registry, look: Look | None = None, **given: Any) -> None:
        super().__init__(registry, look, **given)
        self._running: Any = None
        self._in_head = self._in_body = self._line_ended = self._upgrade = False
        self._head_bytes = self._framing_bytes = 0

    def parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if not self._in_body:
            self._head_bytes += len(data)
            self._line_ended = self._line_ended or b"\n" in data
        self._framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_in_this_protocol(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            refused = error.__context__
            raise (
                refused if isinstance(refused, RefusedError) else malformed("the target is not a path")
            ) from None
        except httptools.HttpParserError as error:
            raise malformed(str(error)) from None
        if self._in_body and self._framing_bytes > self._registry.limits.head_bytes:
            raise malformed("a chunk's head or the trailers do not end")

    def _parse_in_this_protocol(self, rest: bytes) -> None:
        """llhttp stops after a head that asks for another protocol, and would lose the body. We never switch
        protocols, so we parse the request again as one that did not ask."""
        head = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip().lower() for token in value.split(b",")]
                value = b", ".join(token for token in tokens if token != b"upgrade")
            if name != b"upgrade":
                head.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self._upgrade = False
        self.parse(b"\r\n".join([*head, b"", rest]))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._framing_bytes = 0

    def on_headers_complete(self) -> None:
        check_head(self.headers, self.parser.get_http_version())
        self.url = origin_form(self.url, self.parser.get_method().decode())
        if self.parser.should_upgrade():
            self._upgrade = True
            return
        super().on_headers_complete()
        self.headers = []  # where llhttp would put trailers, which nobody reads
        self._in_head, self._in_body = False, True
        self._head_bytes, self._framing_bytes, self._line_ended = 0, 0, False

    def on_message_complete(self) -> None:
        if self._upgrade:
            return
        super().on_message_complete()
        self._in_body = False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True  # uvicorn tells only the last one
            self._running.message_event.set()
        super().connection_lost(exc)

    def in_body(self) -> bool:
        return self._in_body

    def head(self) -> tuple[int, bool]:
        return self._head_bytes or int(self._in_head), self._line_ended

    @property
    def running(self) -> Any:
        return self._running

    def drop_queued(self) -> None:
        self.pipeline.clear()
