"""The life of a serving process: listen, load, serve, drain, end. Exit code 0 only after an orderly end.

The HTTP server is up before the model is loaded, so that `/readyz` can tell how far it is. On SIGTERM or
SIGINT readiness goes down first, accepted requests are answered, then the sockets close. When the engine
dies, every waiting request is told, and the process ends with code 1 within seconds, whatever else still
hangs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn

from prompts_store.errors import StoreError
from server.api.http.disconnect import settle
from server.app import App, Say, bring_up, close_app, stop_tuning
from server.errors import ChorusError, EngineDeadError, InvalidInputError, startup_message

LOG = logging.getLogger("chorus.process")

_DEATH_SECONDS = 4.0
_GRACE_SECONDS = 5.0


class _Uvicorn(uvicorn.Server):
    """A uvicorn whose signals start an orderly end instead of closing the sockets at once."""

    def __init__(self, config: uvicorn.Config, process: Process) -> None:
        super().__init__(config)
        self._process = process

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._process.on_signal(sig)


class Process:
    """One serving process.

    Args:
        app: built, not yet loaded.
        say: told one line at a time how the start goes.
    """

    def __init__(self, app: App, say: Say) -> None:
        self._app = app
        self._say = say
        self._code = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._loaded = threading.Event()
        settings = app.settings
        config = uvicorn.Config(
            app.api,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=int(settings.drain_seconds + _GRACE_SECONDS),
        )
        self._server = _Uvicorn(config, self)

    def run(self) -> int:
        """Serve until a signal or the engine's death.

        Returns:
            The exit code.

        Raises:
            InvalidInputError: the address cannot be listened on.
        """
        listener = listen(self._app.settings.http_host, self._app.settings.http_port)
        asyncio.run(self._serve(listener))
        if not self._loaded.is_set():  # a compile cannot be interrupted: end without waiting for it
            exit_now(self._code)
        if not close_app(self._app):  # nor can one of a tuning job
            exit_now(self._code)
        return self._code

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._say(f"listening on {url_of(listener)}")
        threading.Thread(target=self._load, args=(listener,), name="chorus-load", daemon=True).start()
        upkeep = asyncio.create_task(self._app.upkeep.run())
        try:
            await self._server.serve(sockets=[listener])
        finally:
            await settle(upkeep)

    def _load(self, listener: socket.socket) -> None:
        try:
            compiled = bring_up(self._app, self._say, self._on_death)
        except (ChorusError, StoreError, OSError) as error:
            self._say(f"cannot start: {startup_message(error)}")
            self._stop(1)
        except MemoryError:
            self._say(
                "cannot start: this machine has too little memory: give smaller input_lengths, batch_rows, "
                "blocks or score_buckets."
            )
            self._stop(1)
        except Exception:
            LOG.exception("cannot start")
            self._say("cannot start: see the traceback above")
            self._stop(1)
        else:
            self._say(f"ready at {url_of(listener)} ({compiled})")
        finally:
            self._loaded.set()

    def on_signal(self, sig: int) -> None:
        """Begin the orderly end; a second signal ends at once."""
        if self._draining:
            exit_now(128 + sig)
        self._draining = True
        self._app.services.lifecycle.draining()  # readiness is down before anything else happens
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_drain, signal.Signals(sig).name)

    def _begin_drain(self, name: str) -> None:
        self._say(f"{name}: draining")
        self._drain_task = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        settings, serving = self._app.settings, self._app.services.serving
        await asyncio.sleep(settings.drain_notice_ms / 1000)
        tuning = asyncio.create_task(asyncio.to_thread(stop_tuning, self._app))
        if serving is not None and not await serving.engine.drain(settings.drain_seconds):
            LOG.warning("requests were still running after %s seconds: cancelled", settings.drain_seconds)
            await asyncio.to_thread(serving.engine.stop)
        await tuning
        self._stop(self._code)

    def _on_death(self, error: EngineDeadError) -> None:
        """On the engine's thread or its watchdog's."""
        self._app.services.lifecycle.dead()
        self._say(f"the engine died: {error.message}")
        timer = threading.Timer(_DEATH_SECONDS, exit_now, (1,))
        timer.daemon = True
        timer.start()
        self._stop(1)

    def _stop(self, code: int) -> None:
        self._code = code or self._code
        if self._loop is not None:
            self._loop.call_soon_threadsafe(setattr, self._server, "should_exit", True)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InvalidInputError naming the setting."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio turns Nagle's algorithm off only where the protocol is named; `create_server` does not:
        # with it, an answer in two writes waits 40 ms for the client's delayed acknowledgement.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, ValueError) as error:  # ValueError: no name that a host can have
        raise _cannot_listen(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address[:2])
        listener.listen(2048)
        return listener
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: OSError | ValueError) -> InvalidInputError:
    reason = error.strerror if isinstance(error, OSError) else "no host has such a name"
    nameless = isinstance(error, ValueError | socket.gaierror)
    return InvalidInputError(
        f"Cannot listen on {host[:80]} port {port}: {reason}.", field="http_host" if nameless else "http_port"
    )


def url_of(listener: socket.socket) -> str:
    """Where to reach the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def exit_now(code: int) -> None:
    """End the process without waiting for its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
