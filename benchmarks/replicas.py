"""Requests a second, their p99 and the database's queries a second with 1, 2 and 4 replicas: behind Ray
Serve's two proxies, and asked in turn without any.

    python benchmarks/replicas.py                      about five minutes on two cores

Replicas, database (PostgreSQL where it is installed) and clients are real, on one machine. Only the engine's
step is a sleep (`benchmarks/sleeping.py`), so that cores are left for what is measured: a replica does at
most 4 / `--step-ms` requests a millisecond. Each of `--clients` clients a replica classifies in a loop, 16
tasks in turn. HAProxy mode listens on every address: it runs where only loopback exists (`unshare -n`), else
not at all. Ray comes from tests/ray.txt. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import busy_seconds, machine

from chorus_server.checkpoints_cli import models
from tests.end_to_end.conftest import train_vocabulary
from tests.end_to_end.served import Served
from tests.pip_environment import RAY, packages_of
from tests.postgres_server import PostgresServer, binaries
from tests.server.cluster.ray_cluster import RayCluster

ROOT = Path(__file__).parents[1]
OPERATOR = "an-operator-of-benchmarks-0123456789"
SHAPES = {"shapes": "input_lengths=48 batch_rows=1,4 blocks=48x8x4 score_buckets=1x16,4x16"}
TASKS, WIDTH = 16, 26
_WARM_SECONDS = 3.0


class Counted:
    """How many queries all processes have sent so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def total(self) -> int:
        return sum(int(file.read_text()) for file in self.folder.glob("*[0-9]"))


async def ask(urls: list[str], clients: int, seconds: float, queries: Counted) -> dict[str, Any]:
    """What clients see that ask these URLs in turn, without pause."""
    turn, begun = itertools.count(), time.monotonic() + _WARM_SECONDS
    end, took, failed = begun + seconds, list[float](), 0
    before: list[float] = []

    async def one(http: httpx2.AsyncClient) -> None:
        nonlocal failed
        while (started := time.monotonic()) < end:
            number = next(turn)
            body = {"task": f"task-{number % TASKS}", "input": "a good film", "labels": ["yes", "no"]}
            answer = await http.post(f"{urls[number % len(urls)]}/v1/classify", json=body)
            if started >= begun:
                if not before:
                    before.extend((queries.total(), busy_seconds()))
                failed += answer.status_code != 200
                took.append(1000 * (time.monotonic() - started))

    headers = {"authorization": f"Bearer {OPERATOR}"}
    limits = httpx2.Limits(max_connections=clients * len(urls))
    async with httpx2.AsyncClient(headers=headers, timeout=60, limits=limits) as http:
        await asyncio.gather(*(one(http) for _ in range(clients)))
    return {
        "requests_a_second": round(len(took) / seconds, 1),
        "p50_ms": round(float(np.percentile(took, 50)), 1),
        "p99_ms": round(float(np.percentile(took, 99)), 1),
        "failed": failed,
        "queries_a_second": round((queries.total() - before[0]) / seconds, 1),
        "cores_busy": round((busy_seconds() - before[1]) / seconds, 2),
    }


def publish(url: str) -> None:
    """The tasks, each once."""
    for seed in range(TASKS):
        file = io.BytesIO()
        np.save(file, np.random.default_rng(seed).normal(size=(4, WIDTH)).astype(np.float32))
        headers = {"authorization": f"Bearer {OPERATOR}", "content-type": "application/octet-stream"}
        made = httpx2.post(f"{url}/v1/tasks/task-{seed}/versions", content=file.getvalue(), headers=headers)
        if made.status_code not in (200, 201):
            raise RuntimeError(made.text)


@contextlib.contextmanager
def in_turn(scratch: Path, replicas: int, settings: dict[str, Any]) -> Iterator[list[str]]:
    """Servers without a proxy."""
    command = [sys.executable, str(ROOT / "benchmarks" / "sleeping.py"), "serve"]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(Served(scratch / f"{number}", command=command, **settings))
            for number in range(replicas)
        ]
        for server in servers:
            server.wait_ready()
        yield [str(server.http.base_url).rstrip("/") for server in servers]


@contextlib.contextmanager
def environment(**given: str) -> Iterator[None]:
    """Variables of the processes that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def measure(given: argparse.Namespace, scratch: Path, database: str) -> dict[str, Any]:
    vocabulary = train_vocabulary(scratch)
    arguments = [
        "init",
        str(scratch / "model"),
        "--size",
        "tiny",
        "--to",
        "hf",
        "--vocabulary",
        str(vocabulary),
    ]
    CliRunner().invoke(models, arguments, catch_exceptions=False)
    key, queries = scratch / "key", Counted(scratch / "queries")
    key.write_text(OPERATOR)
    queries.folder.mkdir()
    settings = {
        "model": scratch / "model", "operator_key_file": key, "tuning_enabled": False, "access_log": False,
        "blob_url": f"file://{scratch / 'blobs'}", "database_url": database, **SHAPES,
    }  # fmt: skip
    found: dict[str, Any] = {}

    def note(way: str, replicas: int, urls: list[str]) -> None:
        for file in queries.folder.glob("*[0-9]"):  # of processes that have ended
            if not Path(f"/proc/{file.name}").exists():
                file.unlink()
        clients = given.clients * replicas
        told = asyncio.run(ask(urls, clients, given.seconds, queries))
        found.setdefault(way, {})[str(replicas)] = told
        print(way, replicas, told, file=sys.stderr)

    os.environ |= {"SLEEPING_STEP_MS": str(given.step_ms), "SLEEPING_QUERIES": str(queries.folder)}
    for replicas in given.replicas:
        with in_turn(scratch, replicas, settings) as urls:
            if not found:
                publish(urls[0])
            note("in turn", replicas, urls)
    path = os.pathsep.join(map(str, (ROOT, ROOT / "scripts", packages_of(RAY))))
    shared = settings | {"data_dir": scratch / "ray-data", "log_level": "warning"}
    ways = {"ray": {}} | (
        {"ray haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}} if alone_with_loopback() else {}
    )
    for number, (way, variables) in enumerate(ways.items()):
        with (
            environment(RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S="1", **variables),
            RayCluster(path, scratch / f"ray{number}", **shared) as cluster,
        ):
            for replicas in given.replicas:
                cluster.deploy(replicas, replicas, application="benchmarks.sleeping:application")
                cluster.wait_for(replicas)
                note(way, replicas, [f"http://127.0.0.1:{cluster.port}"])
    if "ray haproxy" not in found:
        found["ray haproxy"] = "not measured: it needs a place with loopback alone (unshare -n)"
    return found


def alone_with_loopback() -> bool:
    """Whether this process has no other network."""
    return {each.name for each in Path("/sys/class/net").iterdir()} == {"lo"} or _INSIDE in os.environ


def inside_loopback() -> None:
    """Start this script again where only loopback exists, and end with it; go on here if there is no such
    place."""
    if _INSIDE in os.environ or not (shutil.which("unshare") and shutil.which("ip")):
        return
    packages_of(RAY)  # while there is a network
    inside = f'ip link set lo up && {_INSIDE}=1 exec "$0" "$@"'
    command = ["unshare", "-n", "sh", "-c", inside, sys.executable, *sys.argv]
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:
        raise SystemExit(subprocess.run(command).returncode)


_INSIDE = "REPLICAS_INSIDE"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--step-ms", type=float, default=100.0)
    parser.add_argument("--clients", type=int, default=8, help="for each replica")
    given = parser.parse_args()
    inside_loopback()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        Path(scratch).chmod(0o755)
        programs, database = binaries(), f"sqlite:///{scratch}/chorus.sqlite"
        if programs is not None:
            server = PostgresServer(programs)
            stack.callback(server.stop)
            database = server.create()
        found = measure(given, Path(scratch), database)
    report = {
        "machine": machine(),
        "engine": f"a sleep of {given.step_ms:g} ms for four rows",
        "database": database.partition(":")[0],
        "clients_a_replica": given.clients,
        "ways": found,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
