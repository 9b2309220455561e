"""A lean open-loop sender: requests go at given moments, whatever the server does, over as many connections
as that takes.

An HTTP client would cost more than the server's refusals do; this one writes bytes that were made before and
reads a status line and a length.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_RETRY = re.compile(rb"\r\nretry-after: *\d+\r\n", re.IGNORECASE)

LOST = 0
"""In place of a status: the connection ended, or no answer came before the run did."""


@dataclass(slots=True)
class Shot:
    """One request.

    Attributes:
        due: seconds from the run's start.
        late: seconds by which it was sent after it was due.
        seconds: from when it was due to the end of its answer.
        status: of the answer, or `LOST`.
        retry: whether a `Retry-After` came with it.
    """

    due: float
    late: float = 0.0
    seconds: float = float("inf")
    status: int = LOST
    retry: bool = False


class _Line(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, clock: Callable[[], float], free: Callable[[_Line], None]) -> None:
        self._clock, self._free = clock, free
        self._transport: asyncio.Transport | None = None
        self._shot: Shot | None = None
        self._got = b""
        self._whole = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, shot: Shot, payload: bytes) -> None:
        assert self._transport is not None
        self._shot, self._got, self._whole = shot, b"", 0
        shot.late = self._clock() - shot.due
        self._transport.write(payload)

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._whole:
            end = self._got.find(b"\r\n\r\n")
            length = _LENGTH.search(self._got) if end >= 0 else None
            if length is None:
                return
            self._whole = end + 4 + int(length.group(1))
        shot = self._shot
        if shot is None or len(self._got) < self._whole:
            return
        shot.seconds = self._clock() - shot.due
        shot.status = int(self._got[9:12])
        shot.retry = _RETRY.search(self._got) is not None
        self._shot = None
        if _CLOSE.search(self._got) and self._transport is not None:
            self._transport.close()
        self._free(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._shot is not None:
            self._shot.seconds = self._clock() - self._shot.due
            self._shot = None


@dataclass
class Sender:
    """Sends to one route of one server.

    Attributes:
        payloads: whole requests; one is drawn for each shot.
    """

    host: str
    port: int
    payloads: Sequence[bytes]
    seed: int = 0
    _idle: list[_Line] = field(default_factory=list)
    _all: list[_Line] = field(default_factory=list)
    _opening: set[asyncio.Task[None]] = field(default_factory=set)
    _start: float = 0.0

    async def open_loop(self, phases: Sequence[tuple[float, float]], drain: float) -> list[Shot]:
        """Poisson arrivals, `(requests a second, seconds)` one phase after the other; then up to `drain`
        seconds for the last answers."""
        choose = random.Random(self.seed)
        shots: list[Shot] = []
        begin = 0.0
        for rate, seconds in phases:
            at = begin + choose.expovariate(rate)
            while at < begin + seconds:
                shots.append(Shot(at))
                at += choose.expovariate(rate)
            begin += seconds
        await self._open(32)
        self._begin()
        for shot in shots:
            if (wait := shot.due - self._clock()) > 0:
                await asyncio.sleep(wait)
            self._fire(shot, choose.choice(self.payloads))
        await self._wait(shots, drain)
        return shots

    async def regular(self, every: float, seconds: float) -> list[Shot]:
        """One request about `every` so many seconds, whatever the server does; then the last answers."""
        choose = random.Random(self.seed)
        shots: list[Shot] = []
        at = every * choose.random()
        while at < seconds:
            shots.append(Shot(at))
            at += every * (1 + 0.04 * choose.random())
        await self._open(4)
        self._begin()
        for shot in shots:
            if (wait := shot.due - self._clock()) > 0:
                await asyncio.sleep(wait)
            self._fire(shot, choose.choice(self.payloads))
        await self._wait(shots, 60.0)
        return shots

    async def closed_loop(self, in_flight: int, seconds: float) -> list[Shot]:
        """So many requests in flight for so long."""
        choose = random.Random(self.seed)
        shots: list[Shot] = []
        await self._open(in_flight)
        self._begin()
        while self._clock() < seconds:
            while self._idle and self._clock() < seconds:
                shots.append(Shot(self._clock()))
                self._fire(shots[-1], choose.choice(self.payloads))
            await asyncio.sleep(0.001)
        await self._wait(shots, 60.0)
        return shots

    def close(self) -> None:
        """End every connection."""
        for line in self._all:
            line.close()

    def _begin(self) -> None:
        self._start = asyncio.get_running_loop().time()

    def _clock(self) -> float:
        return asyncio.get_running_loop().time() - self._start

    async def _open(self, count: int) -> None:
        for _ in range(count - len(self._idle)):
            self._idle.append(await self._line())

    async def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(
            lambda: _Line(self._clock, self._idle.append), self.host, self.port
        )
        self._all.append(line)
        return line

    def _fire(self, shot: Shot, payload: bytes) -> None:
        while self._idle:
            line = self._idle.pop()
            if line.open:
                line.send(shot, payload)
                return
        task = asyncio.ensure_future(self._fire_on_new(shot, payload))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _fire_on_new(self, shot: Shot, payload: bytes) -> None:
        try:
            (await self._line()).send(shot, payload)
        except OSError:
            shot.seconds = self._clock() - shot.due

    async def _wait(self, shots: Sequence[Shot], drain: float) -> None:
        until = self._clock() + drain
        while self._clock() < until and any(  # noqa: ASYNC110 - a look now and then costs the sender least
            shot.seconds == float("inf") for shot in reversed(shots)
        ):
            await asyncio.sleep(0.05)


def payload(host: str, port: int, path: str, body: dict[str, Any], key: str | None = None) -> bytes:
    """A POST as bytes."""
    content = json.dumps(body).encode()
    who = "" if key is None else f"Authorization: Bearer {key}\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\nUser-Agent: chorus-overload\r\n"
        f"{who}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
