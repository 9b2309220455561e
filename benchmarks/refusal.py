"""What refusing an inference request costs in an overload: processor time, from its bytes to the answer's.

    python benchmarks/refusal.py        seconds; needs no quiet machine, because it counts processor time

Ten requests at a time on ten connections, as they come after the loop has paused; *cold* after the caches
were filled with something else, as the products of the model do. The engine refuses all; the client is a
socket pair of this process, so the network is left out.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from uvicorn.server import ServerState

from chorus_server.api.door.entrance import Entrance
from chorus_server.api.http.access import AccessLog
from chorus_server.api.metrics import ApiMetrics
from chorus_server.connections.listener import uvicorn_config
from chorus_server.connections.registry import ConnectionLimits, Registry
from chorus_server.engine.metrics import EngineMetrics
from chorus_server.errors import OverloadedError
from chorus_server.metrics import MetricsRegistry
from chorus_server.settings import Settings
from chorus_server.tenancy.principal import Principal

AT_ONCE, ROUNDS = 10, 200
MESSAGE = (
    "About 0.9 s of work are waiting, too much for the deadline of 1 s: try again later or allow more time."
)


class _Full:
    """An engine that refuses."""

    crowded = True

    def __init__(self, metrics: EngineMetrics) -> None:
        self._refused = metrics.requests_refused

    def check(self, *_: Any, **__: Any) -> None:
        self._refused.inc(1, OverloadedError.default_code)
        raise OverloadedError(MESSAGE, retry_after_seconds=1.0)

    def note_refused(self, code: str, count: int) -> None:
        self._refused.inc(count, code)


def request(number: int) -> bytes:
    """As `serving/overload.py` sends them."""
    asked = {"task": f"task{number % 8}", "input": "A warm, patient film that trusts its actors."}
    body = json.dumps({**asked, "max_new_tokens": 4, "min_new_tokens": 4, "deadline_seconds": 1.0}).encode()
    head = (
        "POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: */*\r\nUser-Agent: chorus-overload\r\n"
    )
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def measure() -> dict[str, float]:
    """Microseconds of processor time a refusal."""
    registry = MetricsRegistry()
    caller = Principal("default", "anonymous", keyless=True)
    services: Any = SimpleNamespace(
        serving=SimpleNamespace(engine=_Full(EngineMetrics(registry))),
        lifecycle=SimpleNamespace(closed=False),
        settings=Settings(model="tiny"),
        callers=SimpleNamespace(known=lambda *_: caller),
    )
    door = Entrance(services, AccessLog(ApiMetrics(registry)))
    config, state, loop = uvicorn_config(lambda *_: None), ServerState(), asyncio.get_running_loop()
    config.load()
    state.default_headers = [(b"date", b"Mon, 30 Nov 2026 22:00:00 GMT")]
    make: Any = config.http_protocol_class
    connections = Registry(ConnectionLimits())
    lines = []
    for _ in range(AT_ONCE):
        ours, theirs = socket.socketpair()
        _, line = await loop.create_connection(
            lambda: make(connections, door.look, config=config, server_state=state, app_state={}), sock=ours
        )
        lines.append((line, theirs))
    sent, other = [request(number) for number in range(AT_ONCE)], np.zeros(8 << 20)

    async def run(*, cold: bool) -> float:
        used = 0.0
        for _ in range(ROUNDS):
            if cold:
                other.__iadd__(1.0)
            await asyncio.sleep(0.006)  # the next wake-up
            begun = time.thread_time()
            for (line, _), data in zip(lines, sent, strict=True):
                line.data_received(data)
            await asyncio.sleep(0)  # what is counted at the end of the turn
            used += time.thread_time() - begun
            for _, theirs in lines:
                if not theirs.recv(1 << 16).startswith(b"HTTP/1.1 503"):
                    raise SystemExit("a request was not refused")
        return round(1e6 * used / (ROUNDS * AT_ONCE), 1)

    await run(cold=False)
    found = {"warm_us": await run(cold=False), "cold_us": await run(cold=True)}
    for line, theirs in lines:
        line.end()
        theirs.close()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(measure())) + "\n")
