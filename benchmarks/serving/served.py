"""`chorus serve` in a process of its own on loopback, and what the parts ask of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from chorus.load.connections import SpreadTransport
from tether import tethered

_READY = re.compile(r"ready at (http://\S+)")
_START_SECONDS = 1800.0
_CALL_SECONDS = 300.0
_STALE_SECONDS = 30.0


class Served:
    """One server; `close` ends it.

    Args:
        settings: by name; tuples are written as the environment has them.
    """

    def __init__(self, data_dir: Path, model: Path, cache: Path, settings: dict[str, Any]) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        own = {
            "http_port": 0,
            "model": model,
            "data_dir": data_dir,
            "compile_cache_dir": cache,
            "log_level": "warning",
        }
        env = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
        env |= {f"CHORUS_{name.upper()}": _written(value) for name, value in (own | settings).items()}
        self._log = data_dir / "server.log"
        self._process = subprocess.Popen(
            tethered([Path(sys.executable).parent / "chorus", "serve"]), env=env, stderr=self._log.open("w")
        )
        self.url = self._wait_ready()
        self.http = httpx2.Client(base_url=self.url, timeout=_CALL_SECONDS)
        address = httpx2.URL(self.url)
        self._line = HTTPConnection(address.host, address.port, timeout=_CALL_SECONDS)
        self._used = time.monotonic()

    def _wait_ready(self) -> str:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if found := _READY.search(self._log.read_text()):
                return found.group(1)
            time.sleep(0.2)
        self._process.kill()
        raise RuntimeError(f"the server is not ready:\n{self._log.read_text()[-2000:]}")

    def close(self) -> None:
        """End the server in an orderly way."""
        self.http.close()
        self._line.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=60)
        finally:
            self._process.kill()

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    def post(self, path: str, body: Any) -> Any:
        """The JSON of a successful POST."""
        answer = self.http.post(path, json=body)
        if answer.status_code not in (200, 201):
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text}")
        return answer.json()

    def upload(self, task: str, values: np.ndarray[Any, Any], **query: Any) -> dict[str, Any]:
        """Publish a prompt under a task, as `.npy`."""
        content = io.BytesIO()
        np.save(content, values)
        answer = self.http.post(
            f"/v1/tasks/{task}/versions",
            params=query,
            content=content.getvalue(),
            headers={"Content-Type": "application/octet-stream"},
        )
        if answer.status_code not in (200, 201):
            raise RuntimeError(f"an upload was answered with {answer.status_code}: {answer.text}")
        return dict(answer.json())

    def generate(self, item: dict[str, Any]) -> float:
        """Seconds of one request on a connection that is open already, with as little client as there is."""
        body = json.dumps(item)
        if time.monotonic() - self._used > _STALE_SECONDS:
            self._line.close()  # the server may have closed it; it opens again by itself
        started = time.perf_counter()
        self._line.request("POST", "/v1/generate", body, {"Content-Type": "application/json"})
        answer = self._line.getresponse()
        text = answer.read()
        seconds = time.perf_counter() - started
        self._used = time.monotonic()
        if answer.status != 200:
            raise RuntimeError(f"/v1/generate answered {answer.status}: {text[:500]!r}")
        return seconds

    def send(self, bodies: Sequence[dict[str, Any]], connections: int) -> tuple[float, list[Any]]:
        """Post to `/v1/generate` from so many connections at once: seconds in all, and the answers."""
        return asyncio.run(self._send(bodies, connections))

    async def _send(self, bodies: Sequence[dict[str, Any]], connections: int) -> tuple[float, list[Any]]:
        waiting = deque(enumerate(bodies))
        answers: list[Any] = [None] * len(bodies)

        async def work(client: httpx2.AsyncClient) -> None:
            while waiting:
                number, body = waiting.popleft()
                answers[number] = await client.post("/v1/generate", json=body)

        transport = SpreadTransport(connections)
        async with httpx2.AsyncClient(
            base_url=self.url, timeout=_CALL_SECONDS, transport=transport
        ) as client:
            # Connections are opened before the clock starts, as a client that stays would have them.
            await asyncio.gather(*(client.get("/healthz") for _ in range(connections)))
            started = time.perf_counter()
            await asyncio.gather(*(work(client) for _ in range(connections)))
            seconds = time.perf_counter() - started
        for answer in answers:
            if answer.status_code != 200 or any("error" in one for one in answer.json()["results"]):
                raise RuntimeError(f"/v1/generate answered {answer.status_code}: {answer.text[:500]}")
        return seconds, [answer.json() for answer in answers]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with these labels."""
        total = 0.0
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith((name + " ", name + "{")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total

    def compiles_by_requests(self) -> float:
        """Programs compiled since readiness because a request came."""
        return self.metric("chorus_compiles_total", cause="request")


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join("x".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in value)
    return str(value)
