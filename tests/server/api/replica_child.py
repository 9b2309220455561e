"""Makes servers on shared databases, each a process of its own until its test lets it go; run by `replicas`.

To import all that a server needs takes longer than everything that these servers do, so one process imports
it, and forks for each. A message on standard input, a Unix socket, brings the arguments of `serve` as JSON
and the end of a socket, on which the new process tells its URL, waits, and says that it has ended well.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from prompts_store.store import PromptStore
from tests.server.api.api_harness import STORE_SECONDS, ApiServer, stop_time
from tests.server.api.replicas import ENDED
from tether import tie_to


class Leasing(ApiServer):
    """A server that leases once a second, as a process does."""

    def background(self) -> list[Coroutine[Any, Any, None]]:
        return [*super().background(), self.services.budgets.follow()]


def serve(test: socket.socket, folder: str, vocabulary: str, how: str, settings: dict[str, Any]) -> None:
    """A server, until the test shuts its end of the socket.

    Args:
        how: with `apart` it shares no leases: it takes every limit for its own alone. With `deaf` it reads no
            change feed, and no time passes for what it remembers.
    """
    loaded = Vocabulary.load(Path(vocabulary), extra_ids=4)
    with Leasing(Path(folder), loaded, follows=how != "deaf", **settings) as server:
        if how == "apart":
            server.services.budgets._leasing._ask_store = PromptStore.in_memory().lease_budgets
        if how == "deaf":
            stop_time(server)
        else:
            start_engine_jobs(server.services)
        test.sendall(f"{server.url}\n".encode())
        test.recv(1)
    test.sendall(ENDED.encode())


def main() -> None:
    for module, name in STORE_SECONDS:
        setattr(module, name, 300.0)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    launcher, asked = os.getpid(), socket.socket(fileno=0)
    while True:
        message, ends, *_ = socket.recv_fds(asked, 1 << 16, 1)
        if not message:
            return
        if os.fork():
            os.close(ends[0])
            continue
        tie_to(launcher)
        asked.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with socket.socket(fileno=ends[0]) as test:
            serve(test, **json.loads(message))
        return


if __name__ == "__main__":
    main()
