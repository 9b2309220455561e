"""A small server as a process of its own, to be attacked: `small_server.py bounded|plain FILES`.

It reads bodies and answers; `/eat` opens files until there is no descriptor left, and SIGUSR1 closes them.
`plain` is uvicorn as it comes.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from chorus_server.connections.h11_protocol import H11Connection
from chorus_server.connections.listener import BoundedServer, uvicorn_config
from chorus_server.connections.registry import ConnectionLimits

EATEN: list[Any] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/eat":
        with suppress(OSError):
            while True:
                EATEN.append(Path("/dev/null").open())  # noqa: ASYNC230, SIM115 - kept open, and quick
    length = (b"content-length", b"2")
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": b"ok"})


def spit(*_: object) -> None:
    while EATEN:
        EATEN.pop().close()


def main(kind: str, files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    signal.signal(signal.SIGUSR1, spit)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server: uvicorn.Server
    if kind == "plain":
        server = uvicorn.Server(uvicorn_config(app, "h11"))
    else:
        server = BoundedServer(uvicorn_config(app, H11Connection), ConnectionLimits())
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    asyncio.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
