"""A server with limits around a small application, on real sockets; its clock may be the test's."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from chorus_server.connections.h11_protocol import H11Connection
from chorus_server.connections.listener import BoundedServer, uvicorn_config
from chorus_server.connections.protocol import Look
from chorus_server.connections.registry import ConnectionLimits, ConnectionPhase
from chorus_server.process import listen
from tests.server.api.api_harness import eventually

try:
    from chorus_server.connections.httptools_protocol import HttptoolsConnection
except ImportError:
    CONNECTIONS: list[Any] = [H11Connection]
else:
    CONNECTIONS = [H11Connection, HttptoolsConnection]

Route = Callable[[Scope, Receive, Send], Awaitable[None]]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bounds:
    """A server on a free port, in a thread of its own.

    The application reads the body and answers with what it got; other routes are given by path.

    Args:
        clock: of its connections; by default it stands still, and no busy machine ends one.

    Attributes:
        left: paths of requests whose routes saw their caller leave.
        read: bytes of all bodies that the application has read.
    """

    def __init__(
        self,
        connection: Any = H11Connection,
        *,
        clock: Callable[[], float] | None = None,
        routes: dict[str, Route] | None = None,
        plain: bool = False,
        look: Look | None = None,
        **limits: Any,
    ) -> None:
        self.routes = routes or {}
        self.left: list[str] = []
        self.read = 0
        config = uvicorn_config(self._app, connection)
        bounded = BoundedServer(config, ConnectionLimits(**limits), look, clock or Clock())
        self.registry = bounded.registry
        self.server = uvicorn.Server(config) if plain else bounded
        self._listener = listen("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve(sockets=[self._listener])

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if route := self.routes.get(scope["path"]):
            await route(scope, receive, send)
            return
        body, message = b"", await receive()
        while message["type"] == "http.request":
            body += message["body"]
            self.read += len(message["body"])
            if not message["more_body"]:
                break
            message = await receive()
        else:
            self.left.append(scope["path"])
            return
        told = {"path": scope["path"], "query": scope["query_string"].decode(), "body": len(body)}
        await answer(send, json.dumps(told).encode())

    def on_loop(self, call: Callable[[], Any]) -> Any:
        """The result of a call that the event loop makes."""

        async def made() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(made(), self.loop).result(300)

    def sweep(self) -> None:
        """What the timer does, until there is nothing more to do."""
        while self.on_loop(self.registry.sweep):
            pass

    def phases(self) -> list[str]:
        """The phases of the open connections."""
        return self.on_loop(
            lambda: sorted(phase.name for phase, held in self.registry._phases.items() for _ in held)
        )

    def until(self, *phases: ConnectionPhase) -> None:
        """Wait for what the loop does by itself: connections are in exactly these phases."""
        wanted = sorted(phase.name for phase in phases)
        self.until_true(lambda: self.phases() == wanted)

    def until_true(self, condition: Callable[[], bool]) -> None:
        """Wait for it; fails when it does not come."""
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline, self.phases()

    def connections(self) -> list[Any]:
        """Of the registry, in no order. To be looked at on the loop."""
        return [one for held in self.registry._phases.values() for one in held]

    def connect(self) -> socket.socket:
        """A connection of a client."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=300)

    def ask(self, data: bytes) -> list[Answer]:
        """The answers on one connection until it is closed; the client closes its side after the last."""
        with self.connect() as client:
            client.sendall(data)
            return answers_of(client)

    def __enter__(self) -> Bounds:
        self.thread.start()
        eventually(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(300)
        assert not self.thread.is_alive()


async def answer(send: Send, body: bytes, status: int = 200, headers: Any = ()) -> None:
    """A whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers with names in lower case, body."""


def next_answer(client: socket.socket) -> Answer | None:
    """The next answer on a connection; None when the server has closed it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            assert not head, head
            return None
        head += byte
    line, *lines = head.decode().rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
    size = int(headers.get("content-length", 0))
    body = client.recv(size, socket.MSG_WAITALL) if size else b""
    assert len(body) == size
    return int(line.split(" ")[1]), headers, body


def answers_of(client: socket.socket) -> list[Answer]:
    """Every answer until the server closes."""
    return list(iter(lambda: next_answer(client), None))
