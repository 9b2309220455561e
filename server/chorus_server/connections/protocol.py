"""uvicorn's HTTP protocols with limits: what both have in common."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
import weakref
from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.flow_control import FlowControl

from chorus_server.api.door.entrance import Decide
from chorus_server.api.http.context import ARRIVAL, Arrival, new_request_id, request_id_of
from chorus_server.api.http.raw import with_headers
from chorus_server.connections.refusals import (
    RefusedError,
    head_too_large,
    raw_answer,
    request_timeout,
)
from chorus_server.connections.registry import ConnectionPhase, Registry
from chorus_server.errors import ChorusError

Look = Callable[[bytes, Decide], bytes | int | None]
"""Called with all bytes of a request that have come so far. Returns the answer that refuses it, without the
server's own headers; or how many
more bytes it needs to decide, 0 if the parser gets the request; or None if it decides later."""

_OVER = (ConnectionPhase.REFUSED, ConnectionPhase.ENDED)


class Bounded(asyncio.BufferedProtocol):
    """A uvicorn protocol that the registry can end. Its refusals have the shape of Chorus's errors.

    Args:
        registry: the server's connections.
        look: called with a request before the parser gets it.
        given: uvicorn's own arguments.
    """

    # uvicorn's
    app: Any
    app_state: dict[str, Any]
    cycle: Any
    flow: FlowControl
    server_state: Any
    transport: asyncio.Transport

    def __init__(self, registry: Registry, look: Look | None = None, **given: Any) -> None:
        super().__init__(**given)
        self.phase = ConnectionPhase.HEAD
        self._look = look
        self._kept = b""
        self._registry = registry
        self._progress = 0
        self._deaf = False
        self.held = False
        registry.enter(self)

    # What the implementations know

    @abstractmethod
    def parse(self, data: bytes) -> None:
        """Parse bytes and start the requests that they complete. Raises RefusedError."""

    @abstractmethod
    def in_body(self) -> bool:
        """Whether more of a request's body is still to come."""

    @abstractmethod
    def head(self) -> tuple[int, bool]:
        """How many bytes of a head have come, and whether its first line is complete."""

    @property
    @abstractmethod
    def running(self) -> Any:
        """The uvicorn request-response cycle that runs now or ran last; None if there was none."""

    @abstractmethod
    def drop_queued(self) -> None:
        """Forget the requests behind the running one."""

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.flow = _Flow(self.transport, self)
        if self.phase is ConnectionPhase.ENDED:  # it ended in the turn of the loop that accepted it
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._registry.leave(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._registry.buffer  # shared by all connections: what is read is copied at once

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._registry.buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        if self._deaf or self.phase in _OVER:
            return
        if self.phase is ConnectionPhase.BODY:
            self._progress += len(data)
            if self._progress >= self._registry.limits.progress_bytes:
                self.goes_on()
        if self._look is not None and (self._kept or self._begins_request()):
            data = self._kept + data
            seen = self._look(data, self._decided)
            if isinstance(seen, bytes):
                self._kept = b""
                self._answer_unread(seen)
                return
            if seen != 0:
                self._keep(data, whole=seen is None)
                return
            self._kept = b""
        self._parse(data)

    def _begins_request(self) -> bool:
        """Whether the next byte is the first of a request, with nothing under way."""
        return (
            self.phase in (ConnectionPhase.HEAD, ConnectionPhase.IDLE)
            and not self.head()[0]
            and not self.transport.get_write_buffer_size()
        )

    def _keep(self, data: bytes, whole: bool) -> None:
        """Keep bytes back from the parser. If the request is incomplete, a body's time limit applies; if
        complete, none."""
        if not self._kept:
            self._registry.move(self, ConnectionPhase.BODY)
            self._progress = 0
        self._kept = data
        if whole:
            self.held = True
            self.flow.pause_reading()

    def _decided(self, decision: bytes | Arrival) -> None:
        kept, self._kept = self._kept, b""
        if not kept or self.phase in _OVER or self.transport.is_closing():
            return
        if isinstance(decision, Arrival):
            self.app_state = {**self.app_state, ARRIVAL: decision}
            self._parse(kept)
            self.app_state.pop(ARRIVAL)
        else:
            self._answer_unread(decision)
        self.flow.resume_reading()

    def _answer_unread(self, answer: bytes) -> None:
        self._registry.move(self, ConnectionPhase.IDLE)
        self.transport.write(with_headers(answer, self.server_state.default_headers))

    def _parse(self, data: bytes) -> None:
        try:
            self.parse(data)
        except RefusedError as error:
            self.refuse(error)
        else:
            self.take_phase()
            received, line_ended = self.head()
            if received > self._registry.limits.head_bytes:
                self.refuse(head_too_large(self._registry.limits.head_bytes, line_ended))

    def eof_received(self) -> None:
        """The client closed its side; asyncio closes ours."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._registry.watch_reader(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._registry.trust_reader(self)
        if self.transport.is_closing():
            self._registry.watch_reader(self)

    # uvicorn's calls

    def on_response_complete(self) -> None:
        super().on_response_complete()  # type: ignore[misc]  # the implementation has it
        self.take_phase()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's own timer calls this. It does nothing: the registry ends idle connections."""

    def shutdown(self) -> None:
        """The server is ending: close now if nothing is under way, else after the running answer."""
        if kept := self._kept:  # its route answers that the server is ending
            self._kept = b""
            self._parse(kept)
            self.flow.resume_reading()
        if self.phase is not ConnectionPhase.REFUSED:  # a refused connection closes by itself in a moment
            super().shutdown()  # type: ignore[misc]  # the implementation has it

    # The registry's calls

    def unsent(self) -> int:
        """Includes what the operating system buffers: it asks for more only when a third of that is gone."""
        held = 0
        with suppress(OSError, ValueError):  # not every system can say
            reply = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
            (held,) = struct.unpack("i", reply)
        return held + self.transport.get_write_buffer_size()

    def out_of_time(self) -> None:
        if self.phase is ConnectionPhase.HEAD and self.head()[0]:
            self.refuse(request_timeout("The head of the request did not come in time"))
        elif self.phase is ConnectionPhase.HEAD:
            self._registry.tally.note("no request")
            self.end()
        elif self.phase is ConnectionPhase.BODY:
            if self.flow.read_paused or self.held:  # the server is not ready for more
                self._registry.move(self, ConnectionPhase.BODY)
            else:
                self.refuse(request_timeout("The body did not come in time"))
        elif self.phase is ConnectionPhase.ANSWER:
            self.take_phase()
            if self.phase is ConnectionPhase.ANSWER:
                self._registry.move(self, ConnectionPhase.ANSWER)
                if self.transport.get_write_buffer_size() and self.running.response_complete:
                    self._registry.watch_reader(self)
        else:
            self.end()

    def end(self) -> None:
        self._registry.move(self, ConnectionPhase.ENDED)
        if self.transport is not None:
            self.transport.abort()

    # The connection's own

    def goes_on(self) -> None:
        """The body made progress, or reading it was resumed."""
        self._progress = 0
        self.held = False
        if self.phase is ConnectionPhase.BODY:
            self._registry.move(self, ConnectionPhase.BODY)

    def take_phase(self) -> None:
        """Enter the phase that follows from what has been received and sent."""
        cycle, transport = self.cycle, self.transport
        if self.phase in _OVER:
            return
        if transport.is_closing():
            phase = ConnectionPhase.ENDED
            if transport.get_write_buffer_size():
                self._registry.watch_reader(self)
        elif self.in_body():
            phase = ConnectionPhase.BODY
        elif cycle is None:
            phase = ConnectionPhase.HEAD
        elif not cycle.response_complete or transport.get_write_buffer_size():
            phase = ConnectionPhase.ANSWER
        elif self.head()[0]:
            phase = ConnectionPhase.HEAD
        else:
            phase = ConnectionPhase.IDLE
        if phase is not self.phase:
            self._registry.move(self, phase)
            if phase is ConnectionPhase.BODY:
                self._progress = 0
                self.held = not cycle.response_complete and cycle.waiting_for_100_continue

    def refuse(self, error: ChorusError) -> None:
        """End the connection with this answer. If an answer has begun, or one to an earlier request is due,
        it is not interrupted: the connection ends after it, or at once if that answer needs the rest of the
        body."""
        if self.phase in _OVER or self.transport.is_closing():
            return
        running, in_body = self.running, self.in_body()
        answering = running is not None and not running.response_complete
        own = in_body and running is self.cycle
        if answering and not own:
            self.end_behind_running()
        elif answering and running.response_started:
            self._registry.tally.note(error.code)
            self.end()
        elif own and not answering:
            self._linger(b"")
        else:
            request_id = request_id_of(Request(running.scope)) if own else new_request_id()
            self._registry.tally.note(error.code, request_id)
            if own:  # to the route it looks as if its caller left
                running.disconnected, running.waiting_for_100_continue = True, False
                running.message_event.set()
            self._linger(raw_answer(error, request_id, self.server_state.default_headers))

    def end_behind_running(self) -> None:
        """Read nothing more; close when the running request is answered."""
        self.drop_queued()
        self._deaf, self.running.keep_alive = True, False

    def _linger(self, answer: bytes) -> None:
        """Send the last bytes and throw away whatever arrives. If we closed at once, the last bytes would be
        lost: the system answers unread bytes by resetting the connection."""
        self._registry.move(self, ConnectionPhase.REFUSED)
        self.flow.resume_reading()
        with suppress(OSError):  # the client has left
            self.transport.write(answer)
            self.transport.write_eof()


class _Flow(FlowControl):
    """uvicorn's flow control, which also notes when the server wants more of a body. It does not keep its
    connection: one that has ended is freed at once, without a garbage collection."""

    def __init__(self, transport: asyncio.Transport, connection: Bounded) -> None:
        super().__init__(transport)
        self._connection = weakref.ref(connection)

    def resume_reading(self) -> None:
        connection = self._connection()
        if connection is not None and (self.read_paused or connection.held):
            connection.goes_on()
        super().resume_reading()
