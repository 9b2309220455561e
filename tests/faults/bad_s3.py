"""A real S3 server that misbehaves: an HTTP proxy in front of it, which the signatures allow.

It passes every request on, until it is told to spoil some of them.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Trouble = Literal["500", "409", "slow", "cut answer", "cut upload", "other bytes"]


class BadS3:
    """The proxy's state.

    Attributes:
        port: where it listens.
        spoilt: how many requests were spoilt.
    """

    def __init__(self, behind: int) -> None:
        self._lock = threading.Lock()
        self._trouble: Trouble | None = None
        self._left = 0
        self._calm = threading.Event()
        self.behind = behind
        self.port = 0
        self.spoilt = 0

    @contextmanager
    def trouble(self, kind: Trouble, times: int = 10**6) -> Iterator[None]:
        """Spoil so many requests within the block, those that this kind is about."""
        with self._lock:
            self._trouble, self._left, self.spoilt = kind, times, 0
        self._calm.clear()
        try:
            yield
        finally:
            with self._lock:
                self._trouble = None
            self._calm.set()

    def taken(self, method: str, length: int) -> Trouble | None:
        """What to do to a request; counts it.

        Args:
            length: of its body.
        """
        with self._lock:
            about = {"cut upload": method == "PUT" and length > 1, "cut answer": method == "GET"}
            about["other bytes"] = method == "GET"
            kind = self._trouble
            if kind is None or not self._left or not about.get(kind, True):
                return None
            self._left -= 1
            self.spoilt += 1
            return kind

    def wait(self) -> None:
        """Return when the trouble is over."""
        self._calm.wait()


@contextmanager
def bad_s3(behind: int) -> Iterator[BadS3]:
    """A proxy in front of the server at a port of this machine."""
    state = BadS3(behind)

    class Handler(_Handler):
        bad = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bad: BadS3

    def do_GET(self) -> None:
        self._pass_on()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests say what they need to."""

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        kind = self.bad.taken(self.command, length)
        if kind == "cut upload":
            self.rfile.read(length // 2)
            return self._hang_up()
        body = self.rfile.read(length)
        if kind == "slow":
            self.bad.wait()
            return self._hang_up()
        if kind in ("500", "409"):
            code = {"500": "InternalError", "409": "OperationAborted"}[kind]
            return self._answer(int(kind), [], f"<Error><Code>{code}</Code></Error>".encode())
        behind = http.client.HTTPConnection("127.0.0.1", self.bad.behind)
        try:
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                behind.putheader(name, value)
            behind.endheaders(body or None)
            answer = behind.getresponse()
            content = answer.read()
        finally:
            behind.close()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOPS]
        if kind == "other bytes" and answer.status in (200, 206):
            content = content[:-1] + bytes([content[-1] ^ 1])
        if kind == "cut answer" and len(content) > 1:
            self._answer(answer.status, headers, content, sent=len(content) // 2)
            return self._hang_up()
        size = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(answer.status, headers, content, length=size)
        return None

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        *,
        sent: int | None = None,
        length: str | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])

    def _hang_up(self) -> None:
        self.close_connection = True


_HOPS = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}
