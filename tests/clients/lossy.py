"""A way to a server on which an answer is lost."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from tests.server.api.api_harness import ApiServer

ABORT = struct.pack("ii", 1, 0)


class Lossy:
    """Passes connections on to a server, and loses its answer to the first POST.

    Args:
        keys: whether it lets `Idempotency-Key` through.
    """

    def __init__(self, port: int, *, keys: bool) -> None:
        self._port, self._keys = port, keys
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.posted = 0
        self.lost = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._pass, args=(caller,), daemon=True).start()

    def _pass(self, caller: socket.socket) -> None:
        with closing(caller), closing(socket.create_connection(("127.0.0.1", self._port))) as server:
            threading.Thread(target=self._up, args=(caller, server), daemon=True).start()
            with suppress(OSError):
                while answer := server.recv(65536):
                    if self.posted and not self.lost:
                        self.lost += 1
                        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                        caller.shutdown(socket.SHUT_RDWR)
                        return
                    caller.sendall(answer)

    def _up(self, caller: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while request := caller.recv(65536):
                self.posted += request.startswith(b"POST ")
                server.sendall(request if self._keys else request.replace(b"Idempotency-Key", b"X-Removed"))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def lossy(api: ApiServer, *, keys: bool = True) -> Iterator[Lossy]:
    """The way to a server, as long as the block lasts."""
    with closing(Lossy(api.port, keys=keys)) as made:
        yield made
