"""The life of a serving process: listen, load, serve, drain, end. The exit code is 0 only after an orderly
end.

The HTTP server is up before the model is loaded, so that `/readyz` can report progress. On SIGTERM, SIGINT
or SIGHUP the server first reports that it is not ready. It then accepts nothing new, answers the requests
under way, and closes the sockets. Requests that are unfinished when `drain_seconds` are almost over get
`shutting_down`. If the engine dies or the start fails, waiting callers get an error and the process ends with
code 1 within seconds. A separate thread enforces these times, whatever else hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import FrameType
from typing import NoReturn

from chorus_server.api.http.disconnect import settle
from chorus_server.api.services import Services
from chorus_server.app import App, bring_up, close_app, stop_jobs
from chorus_server.connections.listener import BoundedServer, uvicorn_config
from chorus_server.connections.pausing import PausingSelector
from chorus_server.connections.registry import ConnectionLimits
from chorus_server.errors import ChorusError, EngineDeadError, InvalidInputError, startup_message
from chorus_server.log import Say
from chorus_server.signals import ending_signals
from prompts_store.errors import StoreError

LOG = logging.getLogger("chorus.process")

_DEATH_SECONDS = 4.0
"""Time from the engine's death, or from a failed start, to the end of the process."""

_CLOSE_SECONDS = 4.0
"""Time to close jobs, engine, threads and store once the sockets are closed."""

LAST_SECONDS = 3.0
"""The last part of `drain_seconds`, for answering the requests that are given up and for closing; never
less."""

TELL_SECONDS = 0.6
"""Time for telling those that are given up, before anything is cancelled or cut off."""

_TICK_SECONDS = 0.05


class EndingServer(BoundedServer):
    """A uvicorn that leaves signals to the process, and whose connections end at a set time.

    Attributes:
        until: when connections that still read or write are cut off, in monotonic seconds.
    """

    until = math.inf

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the sockets; connections close once their answers are sent."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        state = self.server_state
        while (state.connections or state.tasks) and time.monotonic() < self.until + TELL_SECONDS:
            for connection in list(state.connections):
                with contextlib.suppress(Exception):  # a broken connection closes by itself
                    connection.shutdown()  # an idle one closes now, a busy one after its answer
                if time.monotonic() >= self.until:
                    connection.transport.abort()
            await asyncio.sleep(_TICK_SECONDS)


class Process:
    """One serving process.

    Args:
        app: built, but not yet loaded.
        say: called with one line at a time to report how the start goes.
    """

    def __init__(self, app: App, say: Say) -> None:
        self._app = app
        self._say = say
        self._code = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signalled_at: float | None = None
        self._signal = ""
        self._drain_seconds = max(LAST_SECONDS, app.settings.drain_seconds)
        self._served = False
        self._loaded = threading.Event()
        # Times in monotonic seconds. `put` may be interrupted by another `put`, so a signal handler may call
        # it.
        self._ends: queue.SimpleQueue[float] = queue.SimpleQueue()
        limits = ConnectionLimits(idle_seconds=app.settings.keep_alive_seconds)
        self._server = EndingServer(uvicorn_config(app.api), limits, app.entrance.look)

    def run(self) -> int:
        """Serve until a signal, the engine's death or a failed start.

        Returns:
            The exit code.

        Raises:
            InvalidInputError: the server cannot listen on the address.
        """
        listener = listen(self._app.settings.http_host, self._app.settings.http_port)
        threading.Thread(target=self._keep_time, name="chorus-end", daemon=True).start()
        for number in ending_signals():
            signal.signal(number, self._on_signal)
        try:
            with asyncio.Runner(loop_factory=self._new_loop) as runner:
                runner.run(self._serve(listener))
        except BaseException:  # whatever failed, a process that does not serve must end
            LOG.exception("serving failed")
            exit_now(1)
        if not self._loaded.is_set():  # a compile cannot be interrupted: end without waiting for it
            exit_now(self._code)
        if not close_app(self._app):  # a tuning job's compile cannot be interrupted either
            exit_now(self._code)
        return self._code

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(PausingSelector(self._app.entrance.pause_seconds))

    def _keep_time(self) -> None:
        """End the process when a time set for it has come. Runs on its own thread."""
        until = math.inf
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                until = min(until, self._ends.get(timeout=None if math.isinf(left) else left))
        exit_now(self._code if self._served else self._code or 1)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = self._app.services.loop = asyncio.get_running_loop()
        self._say(f"listening on {url_of(listener)}")
        threading.Thread(target=self._load, args=(listener,), name="chorus-load", daemon=True).start()
        if self._signalled_at is not None:  # before there was a loop to tell
            self._begin_drain()
        async with upkept(self._app):
            await self._server.serve(sockets=[listener])
        self._app.services.usage.save()  # whatever hangs from here on
        self._served = True
        self._ends.put(time.monotonic() + _CLOSE_SECONDS)
        if self._server.server_state.tasks:  # they wait for a hanging thread and will never answer
            exit_now(self._code)

    def _load(self, listener: socket.socket) -> None:
        try:
            compiled = bring_up(self._app, self._say, self._on_death)
            self._say(f"ready at {url_of(listener)} ({compiled})")
        except (ChorusError, StoreError, OSError) as error:
            self._fail(f"cannot start: {startup_message(error)}")
        except MemoryError:
            self._fail(
                "cannot start: this machine has too little memory: choose smaller shapes, or "
                "smaller input_lengths, batch_rows, blocks or score_buckets."
            )
        except BaseException:  # SystemExit too: nobody else sees why this thread ends
            self._ends.put(time.monotonic() + _DEATH_SECONDS)  # first, in case the reporting fails too
            LOG.exception("cannot start")
            self._fail("cannot start: see the traceback above")
        finally:
            self._loaded.set()

    def _on_signal(self, sig: int, frame: FrameType | None) -> None:
        """Begin the orderly end; a second signal ends at once."""
        if self._signalled_at is not None:
            exit_now(128 + sig)
        self._signalled_at = time.monotonic()
        self._app.services.lifecycle.draining()  # report "not ready" before anything else happens
        self._signal = signal.Signals(sig).name
        self._ends.put(self._signalled_at + self._drain_seconds)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        self._drain_task = asyncio.ensure_future(self._drain())
        with contextlib.suppress(Exception):  # a failure here must not keep the process alive
            self._say(f"{self._signal}: draining")

    async def _drain(self) -> None:
        assert self._signalled_at is not None
        until = self._signalled_at + self._drain_seconds - LAST_SECONDS
        try:
            await drain(self._app, until, asyncio.sleep(self._app.settings.drain_notice_ms / 1000))
        except Exception:
            LOG.exception("draining failed; the process ends anyway")
            self._code = 1
        self._stop(self._code, until + 3 * TELL_SECONDS)

    def _on_death(self, error: EngineDeadError) -> None:
        """Called on the engine's thread or on the watchdog's."""
        self._app.services.lifecycle.dead()
        self._fail(f"the engine died: {error.message}")

    def _fail(self, line: str) -> None:
        """End with code 1 within seconds. May be called from any thread."""
        self._code = 1
        now = time.monotonic()
        self._ends.put(now + _DEATH_SECONDS)
        try:
            self._say(line)
        finally:
            self._stop(1, now + _DEATH_SECONDS / 2)

    def _stop(self, code: int, until: float) -> None:
        """Close the sockets; connections have until then, in monotonic seconds. May be called from any
        thread."""
        self._code = code or self._code
        self._server.until = min(self._server.until, until)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(setattr, self._server, "should_exit", True)


@contextlib.asynccontextmanager
async def upkept(app: App, *, collecting: bool = True) -> AsyncIterator[None]:
    """Do on this event loop, until the block ends, what a serving process does besides answering.

    Args:
        collecting: whether it takes its turn at removing what nothing needs.
    """
    services = app.services
    works = (
        *((services.upkeep.run(),) if collecting else ()),
        services.hour.run(),
        services.library.health.watch(),
        services.changes.follow(),
        services.callers.last_use.run(),
        services.budgets.follow(),
    )
    tasks = [asyncio.create_task(each) for each in works]
    try:
        await services.changes.read()  # following begins here, while nothing is remembered
        yield
    finally:
        await settle(*tasks)


async def drain(app: App, until: float, notice: Awaitable[object]) -> None:
    """Answer the requests under way, and give back the jobs.

    Args:
        until: when unfinished requests are given up, in monotonic seconds.
        notice: until it is over, new requests are still taken.
    """

    def left() -> float:
        return max(0.0, until - time.monotonic())

    told = 2 * TELL_SECONDS
    jobs = asyncio.create_task(asyncio.to_thread(stop_jobs, app, left() + told))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(notice, left())
    if given_up := await answer_requests(app.services, left(), TELL_SECONDS):
        LOG.warning("gave up %d unfinished requests", given_up)
    await asyncio.wait({jobs}, timeout=max(0.0, until + told - time.monotonic()))


async def answer_requests(services: Services, seconds: float, tell_seconds: float) -> int:
    """Accept nothing new and wait for the requests under way. Those unfinished after `seconds` are given up
    and get `shutting_down` as their one outcome. Runs on the event loop.

    Args:
        tell_seconds: how long to wait for those answers; at most twice as long.

    Returns:
        How many requests were given up.
    """
    lifecycle = services.lifecycle
    lifecycle.close()
    unfinished = await lifecycle.answered(seconds)
    if services.serving is not None:
        await services.serving.engine.drain(0.0 if unfinished else tell_seconds)
    if unfinished and await lifecycle.answered(tell_seconds):  # the engine's own are done by then
        await lifecycle.give_up(tell_seconds)
    return unfinished


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InvalidInputError naming the setting."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio turns Nagle's algorithm off only where the protocol is named; `create_server` does not:
        # with it, an answer in two writes waits 40 ms for the client's delayed acknowledgement.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except (OSError, ValueError) as error:  # ValueError: not a possible host name
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
    reason = error.strerror if isinstance(error, OSError) else "that is not a host name"
    nameless = isinstance(error, ValueError | socket.gaierror)
    return InvalidInputError(
        f"Cannot listen on {host[:80]} port {port}: {reason}.", field="http_host" if nameless else "http_port"
    )


def url_of(listener: socket.socket) -> str:
    """Where to reach the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def end_with(run: Callable[[], int]) -> NoReturn:
    """End the process with the exit code that `run` returns, or with 1 where it fails.

    Raises:
        ChorusError, StoreError: raised by `run`; the process goes on.
    """
    try:
        code = run()
    except (ChorusError, StoreError):
        raise
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        LOG.exception("cannot start")
        code = 1
    exit_now(code)  # everything is closed; shutting down the interpreter would take seconds more


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for its threads."""
    with contextlib.suppress(Exception):
        logging.shutdown()  # write the rest of the log, for a moment at most
    os._exit(code)
