"""A serving process inside another program, which brings the requests and says when to end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

from chorus_server.app import App, bring_up, build_app, close_app
from chorus_server.cluster.front import Front
from chorus_server.connections.listener import uvicorn_config
from chorus_server.connections.registry import ConnectionLimits
from chorus_server.errors import EngineDeadError, InvalidInputError
from chorus_server.log import Say
from chorus_server.process import LAST_SECONDS, TELL_SECONDS, EndingServer, drain, listen, upkept, url_of
from chorus_server.settings import Settings, is_loopback

_PORTS = 64
"""How many ports after `http_port` are tried."""


class Replica:
    """One of several processes behind a proxy. It does what `chorus serve` does, and listens at a port of its
    own besides, where its metrics are.

    Everything but the constructor runs on one event loop.

    Args:
        settings: its `http_port` is the proxy's; those after it are the replicas'.
        proxy_host: the address that the proxy listens on.
        say: called with one line at a time to report how the start goes.
        lost_lines: how many lines of the log could not be written so far.

    Raises:
        InvalidInputError: a setting is not acceptable, or others could reach the proxy without any key.
        StoreError: the data folder or the database cannot be used.
    """

    def __init__(
        self, settings: Settings, proxy_host: str, say: Say, lost_lines: Callable[[], int] = lambda: 0
    ) -> None:
        if not is_loopback(proxy_host):
            settings = settings.model_copy(update={"http_host": proxy_host})
        self._say = say
        self._app = build_app_behind(settings, proxy_host, lost_lines)
        self._stack = contextlib.AsyncExitStack()
        self._started = False
        self._noticed = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self.front = Front(self._app.api)

    async def start(self) -> None:
        """Load the model, compile, and take requests.

        Raises:
            ChorusError, StoreError, OSError, MemoryError: it cannot start.
        """
        app, settings = self._app, self._app.settings
        app.services.loop = asyncio.get_running_loop()
        listener = listen_after(settings.http_host, settings.http_port)
        limits = ConnectionLimits(idle_seconds=settings.keep_alive_seconds)
        server = EndingServer(uvicorn_config(app.api), limits, app.entrance.look)
        serving = asyncio.create_task(server.serve(sockets=[listener]))

        async def end_listening() -> None:
            server.until = time.monotonic() + TELL_SECONDS
            server.should_exit = True
            await serving

        self._stack.push_async_callback(end_listening)
        self._say(f"listening on {url_of(listener)}")
        try:
            await self._stack.enter_async_context(upkept(app))
            compiled = await asyncio.to_thread(bring_up, app, self._say, self._on_death)
        except BaseException as error:
            app.services.lifecycle.dead()
            await self._stack.aclose()
            if isinstance(error, Exception):  # a start that is cancelled may still compile on its thread
                await asyncio.to_thread(close_app, app)
            raise
        self._started = True
        self._say(f"ready at {url_of(listener)} ({compiled})")

    def _on_death(self, error: EngineDeadError) -> None:
        """Called on the engine's thread or on the watchdog's."""
        self._app.services.lifecycle.dead()
        self._say(f"the engine died: {error.message}")

    def check(self) -> None:
        """Raise EngineDeadError if the engine died. A replica that starts or drains is in order."""
        lifecycle = self._app.services.lifecycle
        if lifecycle.phase == "dead":
            raise lifecycle.not_ready()

    def load(self) -> dict[str, float]:
        """`queued_work_units`, and `usage`, the share of decode slots in use. Empty until it is ready."""
        serving = self._app.services.serving
        if serving is None:
            return {}
        stats = serving.engine.stats()
        usage = stats.slots_in_use / stats.slots_total if stats.slots_total else 0.0
        return {"queued_work_units": float(stats.queued_units), "usage": usage}

    def begin_drain(self, seconds: float) -> None:
        """Report that it is not ready, and give back the jobs. Requests are still taken and answered until
        `close`.

        Args:
            seconds: until the end. What is unfinished `LAST_SECONDS` before gets `shutting_down`, as
                everything that comes after that.
        """
        if self._drain is None and self._started:
            self._say("draining")
            self._app.services.lifecycle.draining()
            until = time.monotonic() + max(0.0, seconds - LAST_SECONDS)
            self._drain = asyncio.create_task(drain(self._app, until, self._noticed.wait()))

    async def close(self) -> None:
        """Answer what is under way, record what was used, and stop. Nobody sends requests any more."""
        if not self._started:  # a compile cannot be interrupted: the process is going to be killed
            return
        self.begin_drain(self._app.settings.drain_seconds)
        assert self._drain is not None
        self._noticed.set()
        await self._drain
        await self._stack.aclose()
        self._app.services.usage.save()
        await asyncio.to_thread(close_app, self._app)
        self._say("closed")


def build_app_behind(settings: Settings, proxy_host: str, lost_lines: Callable[[], int]) -> App:
    """`build_app`, with the proxy named in the refusal to listen without a key."""
    try:
        return build_app(settings, lost_lines)
    except InvalidInputError as error:
        if error.field != "http_host":
            raise
        raise InvalidInputError(
            f"Refusing to serve behind a proxy that listens on {proxy_host} without a key: anybody who "
            "reaches it could use and delete every prompt. Set CHORUS_OPERATOR_KEY_FILE; or let the proxy "
            "listen on 127.0.0.1 (http_options.host; in HAProxy mode Ray's default is every address); or "
            "accept the risk with CHORUS_INSECURE_BIND=true.",
            field="http_host",
        ) from None


def listen_after(host: str, port: int) -> socket.socket:
    """A listening socket at the first free port after this one, or at any for 0.

    Raises:
        InvalidInputError: none of the next `_PORTS` is free; names the setting.
    """
    if port == 0:
        return listen(host, 0)
    last = min(port + _PORTS, 65535)
    for each in range(port + 1, last):
        with contextlib.suppress(InvalidInputError):
            return listen(host, each)
    return listen(host, last)
