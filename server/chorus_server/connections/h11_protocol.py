"""Connections with limits on h11, which is written in Python and always installed."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from chorus_server.connections.protocol import Bounded, Look
from chorus_server.connections.refusals import RefusedError, check_head, malformed, origin_form
from chorus_server.connections.registry import READ_BYTES, Registry

_CONTROLS = bytes({*range(32), 127} - {ord("\t")})


class _StrictH11(h11.Connection):
    """h11 that reports where it stopped, and that refuses lines which it would accept and other servers would
    not."""

    in_body = False

    def next_event(self) -> Any:
        state = self.their_state
        self.in_body = state is h11.SEND_BODY
        before = self.trailing_data[0] if self.in_body or state is h11.IDLE else b""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            reason = str(error).split(":")[0]  # the rest repeats the client's bytes
            raise malformed(reason[:1].lower() + reason[1:]) from None
        if isinstance(event, h11.Request | h11.EndOfMessage):
            lines = before[: len(before) - len(self.trailing_data[0])]
            if lines and _disputed(lines):
                raise malformed("lines end in CR LF, are not folded and have no control characters")
        return event


def _disputed(lines: bytes) -> bool:
    """Whether the lines have line ends, folded lines or control characters that servers read differently."""
    if b"\r\n " in lines or b"\r\n\t" in lines:
        return True
    text = lines.replace(b"\r\n", b"")
    return len(text.translate(None, _CONTROLS)) != len(text)


class H11Connection(Bounded, H11Protocol):
    """A connection on h11, which reads one request at a time."""

    conn: _StrictH11

    def __init__(self, registry: Registry, look: Look | None = None, **given: Any) -> None:
        super().__init__(registry, look, **given)
        # h11's own limit must come after ours, which tells a long request line from long headers.
        self.conn = _StrictH11(h11.SERVER, registry.limits.head_bytes + 2 * READ_BYTES)

    def parse(self, data: bytes) -> None:
        H11Protocol.data_received(self, data)

    def handle_events(self) -> None:
        try:
            super().handle_events()
        except RefusedError as error:
            self.refuse(error)

    def _should_upgrade(self) -> bool:
        """uvicorn asks this when a head is complete. We never switch protocols: the request is answered in
        HTTP/1.1."""
        scope = self.scope
        check_head(self.headers, scope["http_version"])
        if not scope["raw_path"].startswith(b"/"):
            target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
            scope["raw_path"], _, scope["query_string"] = origin_form(target, scope["method"]).partition(b"?")
            scope["path"] = unquote(scope["raw_path"].decode("ascii"))
        return False

    def in_body(self) -> bool:
        return self.conn.in_body

    def head(self) -> tuple[int, bool]:
        if self.conn.their_state is not h11.IDLE:
            return 0, False
        received = self.conn.trailing_data[0]
        return len(received), b"\n" in received

    @property
    def running(self) -> Any:
        return self.cycle

    def drop_queued(self) -> None:
        """Does nothing: h11 reads one request at a time."""
