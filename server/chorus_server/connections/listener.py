"""Accept as many connections as the process has file descriptors for, and serve them.

asyncio's own loop accepts until no descriptor is left, and then logs every failure, two thousand a second.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from chorus_server.api.http.context import new_request_id
from chorus_server.awake import awake
from chorus_server.connections.h11_protocol import H11Connection
from chorus_server.connections.protocol import Bounded, Look
from chorus_server.connections.refusals import no_descriptor, only_probes, raw_answer
from chorus_server.connections.registry import ConnectionLimits, Registry
from chorus_server.errors import InvalidInputError

LOG = logging.getLogger("chorus.connections")

RESERVED = 32
"""Descriptors that ordinary connections may not use. They are for the store, for files, and for health
checks."""

_LAST_PLACES = 16
"""How many of these may go to connections that arrive when no other descriptor is free."""

_LEAST_FILES, _MOST_FILES = 128, 8192
_ACCEPTS_AT_ONCE = 64
_PAUSE_SECONDS = 0.1
_SWEEP_SECONDS, _BUSY_SWEEP_SECONDS = 1.0, 0.01
_OPEN_FILES = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def file_limit() -> int:
    """How many descriptors the process may have. A soft limit below 8,192 is raised to 8,192, or to the hard
    limit if that is lower; a higher soft limit stays.

    Raises:
        InvalidInputError: there are too few to serve.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = _MOST_FILES if hard == unlimited else min(hard, _MOST_FILES)
    if soft != unlimited and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != unlimited and soft < _LEAST_FILES:
        raise InvalidInputError(
            f"The process may open {soft} files; it needs {_LEAST_FILES}, and one for each connection: raise "
            "the limit (ulimit -n)."
        )
    return _MOST_FILES if soft == unlimited else soft


class FreeDescriptors:
    """How many more connections there is room for.

    Args:
        limit: how many descriptors the process may have.
        registry: the open connections, which hold some of them.
    """

    def __init__(self, limit: int, registry: Registry) -> None:
        self._limit = limit
        self._registry = registry
        self._others = 0
        self.look()

    def look(self) -> None:
        """Count the other open descriptors: the number changes with the model, the store and tuning."""
        try:
            listed = len(os.listdir(_OPEN_FILES)) - 1  # noqa: PTH208 - only names: there may be thousands
        except OSError:  # no descriptor is left to open the folder
            listed = self._limit
        self._others = listed - self._registry.count

    def free(self) -> int:
        """How many connections may still come; negative once the reserve is in use."""
        return self._limit - RESERVED - self._others - self._registry.count


class Acceptor:
    """Takes connections from a listening socket, in place of asyncio's server.

    Args:
        make: makes a connection and enters it in the registry.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[], Bounded],
        descriptors: FreeDescriptors,
        registry: Registry,
    ) -> None:
        self._listener = listener
        self._make = make
        self._descriptors = descriptors
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        listener.setblocking(False)
        self._open()

    def _open(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor left, in the process or in the system, or worse
                self._registry.tally.note(f"not accepted: {error.strerror}")
                if not self._registry.make_room():
                    self._loop.remove_reader(self._listener)
                    self._pause = self._loop.call_later(_PAUSE_SECONDS, self._open)
                return
            if self._descriptors.free() > 0:
                self._serve(accepted)
                continue
            if self._registry.make_room():
                self._serve(accepted)
            elif self._descriptors.free() > -_LAST_PLACES:
                self._registry.tally.note("served health checks only")
                self._serve(accepted, only_probes)
            else:
                self._turn_away(accepted)
            return  # descriptors of closed connections are free in the loop's next turn

    def _serve(self, accepted: socket.socket, wrap: Callable[[Any], Any] | None = None) -> None:
        accepted.setblocking(False)
        connection = self._make()
        if wrap is not None:
            connection.app = wrap(connection.app)
        task = self._loop.create_task(self._connect(connection, accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: Bounded, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:  # the client has already left
            accepted.close()
            self._registry.leave(connection)

    def _turn_away(self, accepted: socket.socket) -> None:
        self._registry.tally.note("no room")
        with accepted:
            accepted.setblocking(False)
            with suppress(OSError):
                accepted.send(raw_answer(no_descriptor(), new_request_id(), ()))
                accepted.recv(1 << 16)  # unread bytes would reset the connection

    def close(self) -> None:
        """Accept no more connections."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        """Return at once: nothing is left to wait for."""


def connection_class() -> type[Any]:
    """On httptools, which is faster, if it is installed; else on h11."""
    if importlib.util.find_spec("httptools") is None:
        return H11Connection
    from chorus_server.connections.httptools_protocol import HttptoolsConnection

    return HttptoolsConnection


def uvicorn_config(app: ASGIApp, http: Any = None) -> uvicorn.Config:
    """How uvicorn serves an application here: only HTTP, without its own log and lifespan.

    Args:
        http: class of a connection, or uvicorn's name of one of its own; default `connection_class()`.
    """
    return uvicorn.Config(
        app,
        http=connection_class() if http is None else http,
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
    )


class BoundedServer(uvicorn.Server):
    """A uvicorn whose connections have limits.

    Args:
        config: its `http` is a subclass of `Bounded`.
        look: called with each request before the parser gets it.
        clock: gives monotonic seconds.

    Raises:
        InvalidInputError: the process may have too few descriptors.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        limits: ConnectionLimits,
        look: Look | None = None,
        clock: Callable[[], float] = awake,
    ) -> None:
        super().__init__(config)
        self._look = look
        self.registry = Registry(limits, clock)
        self._descriptors = FreeDescriptors(file_limit(), self.registry)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections from these sockets."""
        await self.lifespan.startup()
        make = partial(
            cast(Any, self.config.http_protocol_class),
            self.registry,
            self._look,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        acceptors = [Acceptor(each, make, self._descriptors, self.registry) for each in sockets or ()]
        self.servers = cast(Any, acceptors)
        self._sweeps = asyncio.create_task(self._sweep())
        self.started = True

    async def _sweep(self) -> None:
        """Sweep until the last connection is closed."""
        while self.registry.count or not self.should_exit:
            more = False
            try:
                more = self.registry.sweep()
                self._descriptors.look()
                self.registry.tally.write(time.monotonic())
            except Exception:
                LOG.exception("a sweep of the connections failed")
            await asyncio.sleep(_BUSY_SWEEP_SECONDS if more else _SWEEP_SECONDS)
