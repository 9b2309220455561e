"""Requests that clients lose while replicas on Ray Serve are updated, become fewer, or are killed: behind
Ray's own proxy and behind HAProxy.

    python benchmarks/replica_ends.py                  some five minutes on two cores
    python benchmarks/replica_ends.py --draining 30    with Ray's own time before a replica of HAProxy's ends

Everything is real but the engine's step, which is a sleep (`benchmarks/sleeping.py`). `--clients` clients ask
without pause and never again, on connections that they keep. A request is lost if its answer is none, or is
not the task's. HAProxy mode listens on every address: it runs where only loopback exists (`unshare -n`). Ray
comes from tests/ray.txt. Prints JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from machine import machine
from replicas import OPERATOR, SHAPES, TASKS, alone_with_loopback, environment, inside_loopback, publish

from chorus_server.checkpoints_cli import models
from tests.end_to_end.conftest import train_vocabulary
from tests.pip_environment import RAY, packages_of
from tests.server.cluster.ray_cluster import RayCluster

ROOT = Path(__file__).parents[1]
WAYS = {"ray": {}, "haproxy": {"RAY_SERVE_ENABLE_HA_PROXY": "1"}}
_ANSWER_SECONDS = 60.0
_BEFORE_SECONDS = 2.0


class Clients:
    """They ask until the block ends.

    Attributes:
        answered: requests that were, as they must be.
        lost: the others, by what came instead.
        slowest: the longest that an answer took, in seconds.
    """

    def __init__(self, url: str, count: int) -> None:
        self._url, self._count = url, count
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.answered, self.slowest = 0, 0.0
        self.lost: Counter[str] = Counter()

    def _run(self, number: int) -> None:
        headers = {"authorization": f"Bearer {OPERATOR}"}
        with httpx2.Client(base_url=self._url, headers=headers, timeout=_ANSWER_SECONDS) as http:
            while not self._over.is_set():
                number += 1
                begun, found = time.monotonic(), self._ask(http, number)
                with self._lock:
                    self.answered += not found
                    self.slowest = max(self.slowest, time.monotonic() - begun)
                    if found:
                        self.lost[found] += 1

    def _ask(self, http: httpx2.Client, number: int) -> str:
        """What was wrong; empty if nothing was."""
        body: dict[str, Any] = {"task": f"task-{number % TASKS}", "input": "a good film", "max_new_tokens": 4}
        try:
            if number % 3:
                answer = http.post("/v1/generate", json=body)
                good = answer.status_code == 200 and bool(answer.json()["results"])
            else:
                answer = http.post("/v1/generate", json=body | {"stream": True})
                good = answer.status_code == 200 and "event: done" in answer.text
        except (httpx2.HTTPError, ValueError) as error:
            return type(error).__name__
        return "" if good else f"{answer.status_code} {answer.text[:80]}"

    def __enter__(self) -> Clients:
        self._pool = ThreadPoolExecutor(self._count)
        self._running = [self._pool.submit(self._run, number) for number in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for each in self._running:
            each.result()
        self._pool.shutdown()


@contextlib.contextmanager
def measured(found: dict[str, Any], name: str, cluster: RayCluster, clients: int) -> Iterator[None]:
    """What clients see that ask before, during and after the block."""
    begun = time.monotonic()
    with Clients(str(cluster.http.base_url), clients) as asking:
        time.sleep(_BEFORE_SECONDS)
        yield
        time.sleep(_BEFORE_SECONDS)
    found[name] = {
        "answered": asking.answered,
        "lost": asking.lost.total(),
        "of_these": dict(asking.lost),
        "slowest_seconds": round(asking.slowest, 2),
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(name, found[name], file=sys.stderr)


def trial(path: str, folder: Path, settings: dict[str, Any], clients: int) -> dict[str, Any]:
    """Update both of two replicas, kill one, and take one away."""
    found: dict[str, Any] = {}
    with RayCluster(path, folder, **settings) as cluster:
        own = {"application": "benchmarks.sleeping:application"}
        cluster.http.headers["authorization"] = f"Bearer {OPERATOR}"
        cluster.deploy(2, 2, **own)
        before = frozenset(cluster.wait_for(2))
        publish(str(cluster.http.base_url).rstrip("/"))
        with measured(found, "update", cluster, clients):
            cluster.deploy(2, 2, log_level="error", **own)
            before = frozenset(cluster.wait_for(2, without=before))
        with measured(found, "kill", cluster, clients):
            os.kill(min(before), signal.SIGKILL)
            cluster.wait_for(2, without=frozenset({min(before)}))
        with measured(found, "scale_in", cluster, clients):
            cluster.deploy(1, 1, log_level="error", **own)
            cluster.wait_for(1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=sorted(WAYS), default=list(WAYS))
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--step-ms", type=float, default=50.0)
    parser.add_argument("--draining", type=float, default=10.0, help="seconds; Ray's own default is 30")
    given = parser.parse_args()
    inside_loopback()
    path = os.pathsep.join(map(str, (ROOT, ROOT / "scripts", packages_of(RAY))))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ends-") as scratch:
        folder = Path(scratch)
        arguments = ["init", str(folder / "model"), "--size", "tiny", "--to", "hf"]
        arguments += ["--vocabulary", str(train_vocabulary(folder))]
        CliRunner().invoke(models, arguments, catch_exceptions=False)
        (folder / "key").write_text(OPERATOR)
        (folder / "queries").mkdir()
        settings: dict[str, Any] = {
            "model": folder / "model", "operator_key_file": folder / "key", "tuning_enabled": False,
            "access_log": False, "log_level": "warning", "drain_seconds": 5, **SHAPES,
        }  # fmt: skip
        os.environ |= {
            "SLEEPING_STEP_MS": str(given.step_ms),
            "SLEEPING_QUERIES": str(folder / "queries"),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(given.draining),
        }
        for way in given.ways:
            if way == "haproxy" and not alone_with_loopback():
                found[way] = "not tried: it needs a place with loopback alone (unshare -n)"
                continue
            with environment(**WAYS[way]):
                own = settings | {"data_dir": folder / f"data-{way}"}
                found[way] = trial(path, folder / way, own, given.clients)
    print(json.dumps({"machine": machine(), "draining_seconds": given.draining, "ways": found}, indent=1))


if __name__ == "__main__":
    main()
