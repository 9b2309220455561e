"""Limits of one call: its total time, and the bytes of its answer.

httpx2 limits each wait on the network. A server that sends a byte now and then keeps every wait short, so a
call also has a `Deadline`. In the awaiting client `asyncio.timeout` enforces it. In the blocking client, each
wait of a connection is cut to the time that is left for the call of its thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore2
import httpx2

from chorus.errors import CallTimeoutError, UnexpectedAnswerError

_PIECE_BYTES = 16 * 1024
_CLOSE_SECONDS = 0.001


class Deadline:
    """When a call must be over.

    Args:
        seconds: counted from now; None means never.
        clock: gives monotonic seconds.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Count again from now."""
        self._ends = None if self._seconds is None else self._clock() + self._seconds

    def left(self) -> float | None:
        """Seconds until the deadline; negative after it, None without a limit."""
        return None if self._ends is None else self._ends - self._clock()

    def within(self, seconds: float | None) -> float | None:
        """The shorter of a wait and the time left, but never zero."""
        left = self.left()
        if left is None:
            return seconds
        return max(_CLOSE_SECONDS, left if seconds is None else min(seconds, left))

    @property
    def over(self) -> bool:
        """Whether the deadline has passed."""
        left = self.left()
        return left is not None and left <= _CLOSE_SECONDS

    def check(self) -> None:
        """Raise CallTimeoutError if the deadline has passed."""
        if self.over:
            raise self.error()

    def error(self) -> CallTimeoutError:
        """The error of a call that is not finished at the deadline."""
        return CallTimeoutError(
            f"The call was not finished after {self._seconds:g} seconds; raise total_seconds or ask for less."
        )


def check_encoding(response: httpx2.Response) -> None:
    """Refuse a compressed body before reading it, because a few bytes of it may unpack to any size. Every
    request asks for plain bytes.

    Raises:
        UnexpectedAnswerError: the body is compressed nevertheless.
    """
    if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise UnexpectedAnswerError(
            "The answer is compressed, although the client asked for plain bytes: check any proxy."
        )


def check_length(response: httpx2.Response, most_bytes: int | None) -> None:
    """Refuse a body that declares itself too long, before reading it. Raises like `check_size`."""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit():
        check_size(int(length[:20]), most_bytes)


def check_size(size_bytes: int, most_bytes: int | None, what: str = "The answer") -> None:
    """Raise UnexpectedAnswerError if something is larger than allowed."""
    if most_bytes is not None and size_bytes > most_bytes:
        raise UnexpectedAnswerError(
            f"{what} is larger than {most_bytes} bytes; raise max_answer_bytes or ask for less."
        )


_CURRENT: ContextVar[Deadline | None] = ContextVar("chorus_deadline", default=None)


@contextmanager
def timed(deadline: Deadline) -> Iterator[None]:
    """Inside the block, this thread's waits on a watched client end at the deadline."""
    token = _CURRENT.set(deadline)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@asynccontextmanager
async def awaited(deadline: Deadline) -> AsyncIterator[None]:
    """Whatever is awaited inside the block is cancelled at the deadline. Raises CallTimeoutError."""
    try:
        async with asyncio.timeout(deadline.left()):
            yield
    except TimeoutError as error:
        raise deadline.error() from error


def watch(client: httpx2.Client) -> None:
    """Cut the waits of a client's connections to what `timed` says. A transport that is not httpx2's own is
    left alone: its waits are checked after they end."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        backend = getattr(pool, "_network_backend", None)
        if isinstance(backend, httpcore2.NetworkBackend):
            pool._network_backend = _TimedBackend(backend)  # type: ignore[union-attr]


def _within(timeout: float | None, error: type[Exception]) -> float | None:
    """The timeout of one wait. Raises `error` if the call is over already."""
    deadline = _CURRENT.get()
    if deadline is None:
        return timeout
    if deadline.over:
        raise error("the call is over")
    return deadline.within(timeout)


class _TimedStream(httpcore2.NetworkStream):
    """A connection whose waits end at the call's deadline."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _within(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for at in range(0, len(buffer), _PIECE_BYTES):  # a slow reader also keeps each wait short
            piece = buffer[at : at + _PIECE_BYTES]
            self._stream.write(piece, _within(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _within(timeout, httpcore2.ConnectTimeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _TimedBackend(httpcore2.NetworkBackend):
    """Makes connections whose waits end at the call's deadline."""

    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        left = _within(timeout, httpcore2.ConnectTimeout)
        return _TimedStream(self._backend.connect_tcp(host, port, left, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        left = _within(timeout, httpcore2.ConnectTimeout)
        return _TimedStream(self._backend.connect_unix_socket(path, left, socket_options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)
