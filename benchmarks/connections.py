"""What limits on connections cost: the server's CPU time for a request, uvicorn's own protocols beside ours.

    python benchmarks/connections.py                   five rounds, about a minute
    python benchmarks/connections.py --requests 500    a small trial

Four small servers, each a process of its own, take turns: uvicorn as it comes and the bounded connections, on
h11 and on httptools (where it is installed). One client sends a request of a usual size again and again on
one connection, then on a connection each. CPU time is that of the event loop's thread, as Linux counts it.
Writes benchmarks/results/DATE-MACHINE-connections.json, unless --requests is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from machine import machine, versions

from chorus_server.connections.h11_protocol import H11Connection
from chorus_server.connections.listener import BoundedServer, connection_class, uvicorn_config
from chorus_server.connections.registry import ConnectionLimits
from chorus_server.process import listen
from tether import tethered

ROOT = Path(__file__).parents[1]
ROUNDS, REQUESTS = 5, 10_000
BODY = b'{"task": "sst2", "input": "' + b"a warm and funny film " * 12 + b'"}'
REQUEST = (
    b"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\nUser-Agent: python-httpx2/0.28.1\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer ck_00000000_00000000000000000000000000000000_000000\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def serve(kind: str, parser: str) -> None:
    """One of the servers; its port is the first line that it writes."""
    ours: Any = H11Connection if parser == "h11" else connection_class()
    config = uvicorn_config(app, parser if kind == "uvicorn" else ours)
    server = uvicorn.Server(config) if kind == "uvicorn" else BoundedServer(config, ConnectionLimits())
    listener = listen("127.0.0.1", 0)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    asyncio.run(server.serve(sockets=[listener]))


class Running:
    """A server process, and what it needs."""

    def __init__(self, kind: str, parser: str) -> None:
        command = [sys.executable, __file__, "--serve", kind, parser]
        self.process = subprocess.Popen(tethered(command), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._address = ("127.0.0.1", int(self.process.stdout.readline()))

    def _cpu_us(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e3

    def kept_alive(self, count: int) -> float:
        """Microseconds of CPU for a request on a connection that stays."""
        with socket.create_connection(self._address) as client:
            began = self._cpu_us()
            for _ in range(count):
                client.sendall(REQUEST)
                client.recv(4096)
            return (self._cpu_us() - began) / count

    def connected(self, count: int) -> float:
        """Microseconds of CPU for a request on a connection of its own."""
        began = self._cpu_us()
        for _ in range(count):
            with socket.create_connection(self._address) as client:
                client.sendall(REQUEST)
                client.recv(4096)
        return (self._cpu_us() - began) / count


def measure(requests: int) -> dict[str, dict[str, float]]:
    """Medians of the rounds, in microseconds, by server."""
    parsers = ["h11"] if connection_class() is H11Connection else ["h11", "httptools"]
    running = {
        f"{kind}, {parser}": Running(kind, parser) for parser in parsers for kind in ("uvicorn", "bounded")
    }
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    try:
        for _ in range(ROUNDS):
            for name, server in running.items():
                rounds[name].append((server.kept_alive(requests), server.connected(requests // 5)))
    finally:
        for server in running.values():
            server.process.kill()
    return {
        name: {
            "kept_alive_us": statistics.median(one for one, _ in took),
            "connection_each_us": statistics.median(one for _, one in took),
        }
        for name, took in rounds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, help=f"a round and server (default {REQUESTS})")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    found = measure(arguments.requests or REQUESTS)
    for name, took in found.items():
        alone = took["connection_each_us"]
        print(f"{name:20} {took['kept_alive_us']:6.1f} us, on a connection each {alone:6.1f}")
    if arguments.requests is None:
        where = machine()
        date = datetime.now(UTC).date().isoformat()
        target = ROOT / "benchmarks" / "results" / f"{date}-{where['name']}-connections.json"
        content = {"what": "connections", "date": date, "machine": where, "servers": found}
        content["versions"] = versions(Path(sys.executable))
        target.write_text(json.dumps(content, indent=1) + "\n")
        print(f"kept in {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
