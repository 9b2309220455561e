"""Which connections are open, what each one waits for, and since when.

There is one registry for each server and one timer, rather than a timer for each connection. All connections
of a phase have the same time limit, so they are kept in the order in which they expire, and a sweep looks at
the expired ones only.
"""

from __future__ import annotations

import enum
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from chorus_server.awake import awake
from chorus_server.log import Tally

LOG = logging.getLogger("chorus.connections")

READ_BYTES = 16 << 10
"""Most bytes read from a connection at a time: parsing this many in one-byte chunks does not hold up the
event loop."""

_AT_ONCE = 256


class ConnectionPhase(enum.Enum):
    """What a connection waits for."""

    HEAD = "the head of a request, the first or one that has begun"
    BODY = "the rest of a request's body"
    ANSWER = "its answer, or the client that reads it"
    IDLE = "the next request"
    REFUSED = "the client to close; it has been told why, and what it still sends is thrown away"
    ENDED = "the operating system: it is closed"

    __hash__ = object.__hash__  # a dictionary key for every request: hashed by identity, in C


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How long a connection may take, in seconds and bytes.

    Attributes:
        head_seconds: from the connection, or from the next request's first byte, to the end of the head.
        stall_seconds: how long a body that the server reads, or an answer that it writes, may make no
            progress.
        idle_seconds: between two requests.
        refused_seconds: for the client to read why it was refused.
        progress_bytes: how many bytes count as progress; the end of a body or an answer also counts.
        head_bytes: the longest request line with its headers.
    """

    head_seconds: float = 10.0
    stall_seconds: float = 30.0
    idle_seconds: float = 75.0
    refused_seconds: float = 2.0
    progress_bytes: int = 16 << 10
    head_bytes: int = 32 << 10


class Connection(Protocol):
    """What the registry needs from a connection."""

    phase: ConnectionPhase

    def out_of_time(self) -> None:
        """The phase's time is over: close, or enter another phase, or the same one again."""

    def unsent(self) -> int:
        """Bytes of answers that the client has not taken."""

    def end(self) -> None:
        """Close the connection now, whatever is under way."""


class Registry:
    """The open connections of a server, by phase.

    Args:
        clock: gives monotonic seconds.

    Attributes:
        tally: counts connections that ended before their time.
        count: how many connections are open.
        buffer: shared by all connections, which read into it one at a time.
    """

    def __init__(self, limits: ConnectionLimits, clock: Callable[[], float] = awake) -> None:
        self.limits = limits
        self.tally = Tally(LOG, logging.WARNING, "connections ended")
        self.count = 0
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._clock = clock
        self._phases: dict[ConnectionPhase, OrderedDict[Connection, float]] = {
            phase: OrderedDict() for phase in ConnectionPhase
        }
        self._readers: OrderedDict[Connection, tuple[float, int]] = OrderedDict()
        self._seconds = {
            ConnectionPhase.REFUSED: limits.refused_seconds,
            ConnectionPhase.HEAD: limits.head_seconds,
            ConnectionPhase.BODY: limits.stall_seconds,
            ConnectionPhase.ANSWER: limits.stall_seconds,
            ConnectionPhase.IDLE: limits.idle_seconds,
        }

    def enter(self, connection: Connection) -> None:
        """Add a new connection, in its current phase."""
        self.count += 1
        self._phases[connection.phase][connection] = self._clock()

    def move(self, connection: Connection, phase: ConnectionPhase) -> None:
        """Move a connection to a phase, which may be the one it is in; the phase's time starts now."""
        if self._phases[connection.phase].pop(connection, None) is None:
            return  # it was closed
        connection.phase = phase
        self._phases[phase][connection] = self._clock()

    def leave(self, connection: Connection) -> None:
        """The connection was closed."""
        if self._phases[connection.phase].pop(connection, None) is not None:
            self.count -= 1
        self._readers.pop(connection, None)

    def watch_reader(self, connection: Connection) -> None:
        """Expect the client to take the unsent bytes, little by little."""
        if connection not in self._readers:
            self._readers[connection] = (self._clock(), connection.unsent())

    def trust_reader(self, connection: Connection) -> None:
        """The client has taken all bytes."""
        self._readers.pop(connection, None)

    def sweep(self) -> bool:
        """End connections that took too long, but never so many at once that the event loop is held up.

        Returns:
            Whether there are more to end.
        """
        now, left = self._clock(), _AT_ONCE
        for phase, seconds in self._seconds.items():
            held = self._phases[phase]
            while held and left:
                connection = next(iter(held))
                since = held[connection]
                if since + seconds > now:
                    break
                left -= 1
                connection.out_of_time()
        return not self._sweep_readers(now, left)

    def _sweep_readers(self, now: float, left: int) -> int:
        while self._readers and left:
            connection, (since, unsent) = next(iter(self._readers.items()))
            if since + self.limits.stall_seconds > now:
                break
            left -= 1
            del self._readers[connection]
            remaining = connection.unsent()
            if remaining and unsent - remaining < self.limits.progress_bytes:
                self.tally.note("answer not read")
                connection.end()
            elif remaining:
                self.watch_reader(connection)
        return left

    def make_room(self) -> bool:
        """End the connection that can best be spared. False if all have requests under way."""
        for phase in (ConnectionPhase.REFUSED, ConnectionPhase.HEAD, ConnectionPhase.IDLE):
            for connection in self._phases[phase]:
                self.tally.note("closed for a newer one")
                connection.end()
                return True
        return False
