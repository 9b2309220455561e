"""Fetches one file over HTTP: streamed to disk, bounded in bytes and in time, each redirect checked.

The bytes move on a thread of their own. A name that does not resolve, a connection that is never made or
headers that drip can block that thread, but not the job that waits for the file: it can still be cancelled,
and its time still runs out.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urljoin

import httpx2

from chorus_server.awake import awake
from chorus_server.errors import InvalidInputError

_REDIRECTS = 5
_SILENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_END_SECONDS = 1.0


def fetch_url(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    seconds: float,
    allowed: Callable[[str], None],
    interrupt: Callable[[], None],
    field: str,
    clock: Callable[[], float] = awake,
) -> None:
    """Fetch to `target`, which appears whole or not at all.

    Args:
        seconds: longest that the download may take.
        allowed: raises to refuse a URL; called for each redirect too.
        interrupt: called several times a second, whatever the other side does; what it raises ends the
            download.
        field: dotted path of the source, for errors.
        clock: seconds, monotonic.

    Raises:
        InvalidInputError: `data_unreachable`, `file_too_large`, or what `allowed` raises.
        OSError: the disk is full or gone.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = clock() + seconds
    transfer = _Transfer(max_bytes, allowed, field, url, target)
    transfer.start()
    try:
        while True:
            interrupt()
            if clock() > deadline:
                _refuse(field, f"took longer than {seconds:g} seconds")
            if transfer.over.wait(_LOOK_SECONDS):
                break
    finally:
        transfer.abandon()
    if transfer.failed is not None:
        raise transfer.failed


class _Transfer(threading.Thread):
    """One download, on a thread of its own.

    Attributes:
        over: set once the thread has nothing left to do.
        failed: the reason if there is no file then.
    """

    def __init__(
        self, max_bytes: int, allowed: Callable[[str], None], field: str, url: str, target: Path
    ) -> None:
        super().__init__(name="chorus-download", daemon=True)
        self._max_bytes = max_bytes
        self._allowed = allowed
        self._field = field
        self._url = url
        self._target = target
        self._partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        self._lock = threading.Lock()
        self._abandoned = False
        self._stream: Any = None
        self.over = threading.Event()
        self.failed: BaseException | None = None

    def abandon(self) -> None:
        """Cut the connection, so that the thread ends and removes its partial file."""
        with self._lock:
            self._abandoned = True
            connection = None if self._stream is None else self._stream.get_extra_info("socket")
        if not self.over.is_set() and connection is not None:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # also under TLS: wakes up whoever reads
        self.join(_END_SECONDS)

    def run(self) -> None:
        try:
            with httpx2.Client(timeout=_SILENCE_SECONDS, follow_redirects=False) as client:
                self._follow(client, self._url)
            with self._lock:
                self._check()
                self._partial.replace(self._target)
        except (InvalidInputError, OSError) as error:
            self.failed = error
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            # ValueError: from the socket or URL library, for an address that it cannot express.
            reason = str(error)[:120] or type(error).__name__
            self.failed = _refusal(self._field, f"could not be fetched: {reason}")
        except BaseException as error:
            self.failed = error
        finally:
            with suppress(OSError):
                self._partial.unlink(missing_ok=True)
            self.over.set()

    def _follow(self, client: httpx2.Client, url: str) -> None:
        for _ in range(_REDIRECTS + 1):
            self._allowed(url)
            # Uncompressed, so that the bytes counted are the bytes kept.
            headers, hooks = {"Accept-Encoding": "identity"}, {"trace": self._connected}
            with client.stream("GET", url, headers=headers, extensions=hooks) as answer:
                if answer.is_redirect and "location" in answer.headers:
                    url = urljoin(url, answer.headers["location"])
                    continue
                if answer.status_code != 200:
                    _refuse(self._field, f"could not be fetched: the server answered {answer.status_code}")
                self._write(answer)
                return
        _refuse(self._field, f"could not be fetched: more than {_REDIRECTS} redirects")

    def _write(self, answer: httpx2.Response) -> None:
        size = 0
        with self._partial.open("xb") as file:
            for piece in answer.iter_bytes():  # as they come
                self._check()
                size += len(piece)
                if size > self._max_bytes:
                    message = f"is larger than {self._max_bytes} bytes, the most that is fetched"
                    _refuse(self._field, message, code="file_too_large")
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _connected(self, event: str, facts: Mapping[str, Any]) -> None:
        """Called by httpcore2 at each step. Keeps the connection, plain or TLS, for `abandon` to cut."""
        with self._lock:
            stream = facts.get("return_value")
            if event.endswith((".connect_tcp.complete", ".start_tls.complete")) and stream is not None:
                self._stream = stream
                if self._abandoned:  # too late for `abandon` to close it
                    stream.close()
            self._check()

    def _check(self) -> None:
        if self._abandoned:
            raise httpx2.ReadError("the download was given up")


def _refuse(field: str, message: str, code: str = "data_unreachable") -> NoReturn:
    raise _refusal(field, message, code)


def _refusal(field: str, message: str, code: str = "data_unreachable") -> InvalidInputError:
    return InvalidInputError(f"{field} {message}", field=field, code=code)
