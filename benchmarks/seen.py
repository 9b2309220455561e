"""How soon what one replica changes is seen by the others: promotion, revocation, deletion, grant, limit.

    python benchmarks/seen.py                     about a minute; writes a result
    python benchmarks/seen.py --times 5           a trial

`--replicas` servers (all but the device: tests/server/api/replica_child.py) are processes on one PostgreSQL
and one bucket of a SeaweedFS (tests/s3_server.txt), all on this machine. A change is made over HTTP at one of
them; each other one has a client that asks it without pause, before and after. *Seen*: from the change's
answer until the last of these clients has the first new answer. The last row is of a replica that reads no
change feed, and for which no time passes.
Writes benchmarks/results/DATE-MACHINE-seen.json, unless --times is given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from machine import machine

from tests.pip_environment import pip_environment
from tests.postgres_server import PostgresServer, binaries
from tests.s3_server import REQUIREMENTS, S3Server
from tests.server.api.api_harness import artifact, train_vocabulary
from tests.server.api.replicas import serving

ROOT = Path(__file__).parents[1]
TIMES, OPERATOR = 50, "an-operator-of-benchmarks-0123456789"
RAW = {"content-type": "application/octet-stream"}
PATIENCE_SECONDS = 10.0


class Fleet:
    """Replicas, and one that is deaf."""

    def __init__(self, urls: list[str]) -> None:
        self.clients = [httpx2.Client(base_url=url, timeout=60) for url in urls]
        self.deaf = self.clients.pop()
        self.made = 0

    def change(self, at: int, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """By the operator, at one replica."""
        headers = {"authorization": f"Bearer {OPERATOR}", **more.pop("headers", {})}
        client = self.clients[at % len(self.clients)]
        answer = client.request(method, path, json=body, headers=headers, **more)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def task(self, versions: int = 1) -> str:
        """A new one."""
        self.made += 1
        for seed in range(versions):
            path = f"/v1/tasks/task-{self.made}/versions"
            self.change(self.made, "POST", path, content=artifact(3, self.made * 10 + seed), headers=RAW)
        return f"task-{self.made}"

    def tenant(self, *, of: str) -> tuple[str, dict[str, Any]]:
        """A new one that may use a task, and its key."""
        name = f"tenant-{self.made}"
        self.change(self.made, "POST", "/v1/tenants", {"name": name})
        self.change(self.made, "PUT", f"/v1/tasks/{of}/grants/{name}", {"rights": ["infer"]})
        return name, self.key(name)

    def key(self, tenant: str) -> dict[str, Any]:
        body = {"name": "k", "scopes": ["infer"]}
        found: dict[str, Any] = self.change(self.made, "POST", f"/v1/keys?tenant={tenant}", body)
        return found


def answered(task: str, key: str = OPERATOR) -> Callable[[httpx2.Client], object]:
    """Which version answers at a replica, or the error's code."""

    def ask(client: httpx2.Client) -> object:
        body = {"task": task, "input": "good film", "max_new_tokens": 1}
        headers = {"authorization": f"Bearer {key}"}
        answer = client.post("/v1/generate", json=body, headers=headers)
        said = answer.json()
        return said["results"][0]["version"] if answer.status_code == 200 else said["error"]["code"]

    return ask


Act = tuple[Callable[[httpx2.Client], object], object, object, Callable[[], object]]
"""How to ask, what is said before and after, and the change between."""


def promotion(fleet: Fleet) -> Act:
    task = fleet.task(versions=2)
    alias = f"/v1/tasks/{task}/aliases/live"
    return answered(task), 1, 2, lambda: fleet.change(0, "PUT", alias, {"version": 2})


def revocation(fleet: Fleet) -> Act:
    task = fleet.task()
    tenant, key = fleet.tenant(of=task)
    path = f"/v1/keys/{key['id']}?tenant={tenant}"
    ask = answered(f"default/{task}", key["key"])
    return ask, 1, "unauthenticated", lambda: fleet.change(0, "DELETE", path)


def deletion(fleet: Fleet) -> Act:
    task = fleet.task()
    return answered(task), 1, "unknown_task", lambda: fleet.change(0, "DELETE", f"/v1/tasks/{task}")


def grant(fleet: Fleet) -> Act:
    """The end of one: what it lets in is looked up anyway."""
    task = fleet.task()
    tenant, key = fleet.tenant(of=task)
    path = f"/v1/tasks/{task}/grants/{tenant}"
    return answered(f"default/{task}", key["key"]), 1, "unknown_task", lambda: fleet.change(0, "DELETE", path)


def limit(fleet: Fleet) -> Act:
    task = fleet.task()
    tenant, key = fleet.tenant(of=task)
    limits = {"limits": {"per_month": {"requests": {"hard": 1}}}}
    path = f"/v1/tenants/{tenant}"
    ask = answered(f"default/{task}", key["key"])
    return ask, 1, "limit_exceeded", lambda: fleet.change(0, "PATCH", path, limits)


ACTS = (promotion, revocation, deletion, grant, limit)


def seen(clients: list[httpx2.Client], act: Act) -> float:
    """Seconds from the change's answer until all have seen it."""
    ask, before, after, change = act
    at = list[float]()
    ready = threading.Barrier(len(clients) + 1)

    def watch(client: httpx2.Client) -> None:
        while ask(client) != before:
            pass
        ready.wait()
        until = time.perf_counter() + PATIENCE_SECONDS
        while time.perf_counter() < until:
            if ask(client) == after:
                at.append(time.perf_counter())
                return

    threads = [threading.Thread(target=watch, args=(client,)) for client in clients]
    for each in threads:
        each.start()
    ready.wait()
    change()
    begun = time.perf_counter()
    for each in threads:
        each.join()
    return max(0.0, max(at) - begun) if len(at) == len(clients) else float("inf")


def told(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)
    return {
        "times": len(ordered),
        "median_s": round(statistics.median(ordered), 3),
        "p95_s": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
        "worst_s": round(ordered[-1], 3),
    }


def measure(urls: list[str], times: int) -> dict[str, Any]:
    fleet = Fleet(urls)
    others = fleet.clients[1:]
    found: dict[str, Any] = {
        act.__name__: told([seen(others, act(fleet)) for _ in range(times)]) for act in ACTS
    }
    deaf = seen([fleet.deaf], promotion(fleet))
    found["promotion_by_one_that_reads_no_feed"] = "never" if deaf == float("inf") else round(deaf, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=int, help=f"in place of {TIMES}; a trial")
    parser.add_argument("--replicas", type=int, default=4)
    given = parser.parse_args()
    if (programs := binaries()) is None:
        raise SystemExit("PostgreSQL is not installed (Debian: apt install postgresql)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres, s3 = PostgresServer(programs), S3Server(pip_environment(REQUIREMENTS))
        stack.callback(postgres.stop)
        stack.callback(s3.stop)
        key, place, vocabulary = folder / "operator", s3.address(), train_vocabulary(folder)
        key.write_text(OPERATOR)
        settings = {
            "database_url": postgres.create(), "operator_key_file": key, "blob_url": s3.url(place),
            "blob_credentials_file": place.credentials_file,
        }  # fmt: skip
        hows: list[tuple[str, ...]] = [()] * given.replicas + [("deaf",)]
        urls = [
            stack.enter_context(serving(folder / str(number), vocabulary, *how, **settings))
            for number, how in enumerate(hows)
        ]
        found = measure(urls, given.times or TIMES)
    now, here = datetime.now(UTC), machine()
    load = [round(each, 1) for each in os.getloadavg()]
    document = {"what": "seen", "date": f"{now:%Y-%m-%d}", "machine": here, "load_average": load}
    text = json.dumps({**document, "replicas": given.replicas, **found}, indent=1) + "\n"
    sys.stdout.write(text)
    if given.times is None:
        (ROOT / f"benchmarks/results/{now:%Y-%m-%d}-{here['name']}-seen.json").write_text(text)


if __name__ == "__main__":
    main()
