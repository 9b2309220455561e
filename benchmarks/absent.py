"""Whether the time of an answer tells what another tenant has: what is asked for by name, what is uploaded.

    python benchmarks/absent.py                about three minutes; writes a result
    python benchmarks/absent.py --pairs 50     a small trial

A real server, over HTTP, one caller on one connection. *Named*: another tenant's object and one that nobody
has, by turns, in random order. *Uploaded*: values, and bytes of a data file, that another tenant has and that
nobody has. For each, the difference of the two medians, beside the 99.9th percentile of what it is when the
two of each pair are swapped at random: a difference beyond that is told by the clock.

The control is a server that leaks: it looks for a task's name among all tenants when the caller has none, and
stores no values that are there. There the difference must be found in `task`, `version`, `generate` and
`upload of values`; files are left as they are.
Writes benchmarks/results/DATE-MACHINE-absent.json, unless --pairs is given.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from machine import machine, versions

from tether import tethered

ROOT = Path(__file__).parents[1]
NAMED, UPLOADED, SWAPS, LEVEL = 1000, 100, 4000, 99.9
_READY = re.compile(r"ready at (http://\S+)")
OPERATOR = "0123456789abcdef" * 4
RAW = {"content-type": "application/octet-stream"}


def leak() -> None:
    """Make this process's store tell by the clock what another tenant has."""
    from sqlalchemy import select

    from prompts_store.blobs.local import LocalBlobs
    from prompts_store.database import EVERY_TENANT, scoped
    from prompts_store.database.tables import tasks
    from prompts_store.errors import NotFoundError
    from prompts_store.tasks import versions as versions_of_tasks
    from prompts_store.tasks.tasks import Tasks

    get_task, resolve, put = Tasks.get_task, versions_of_tasks.resolve, LocalBlobs.put

    def look(connection: Any, name: str) -> None:
        with scoped(connection, EVERY_TENANT):
            for row in connection.execute(select(tasks).where(tasks.c.name == name)):
                connection.execute(select(tasks).where(tasks.c.id == row.id)).all()

    def leaking_task(self: Any, tenant: str, task: str) -> Any:
        try:
            return get_task(self, tenant, task)
        except NotFoundError:
            with self._database.read(EVERY_TENANT) as connection:
                look(connection, task)
            raise

    def leaking_resolve(connection: Any, reference: Any, **options: Any) -> Any:
        try:
            return resolve(connection, reference, **options)
        except NotFoundError:
            look(connection, reference.task)
            raise

    def leaking_put(self: Any, digest: str, content: bytes, **options: Any) -> None:
        if not self.has(digest):
            put(self, digest, content, **options)

    Tasks.get_task = leaking_task  # type: ignore[method-assign]
    versions_of_tasks.resolve = leaking_resolve
    LocalBlobs.put = leaking_put  # type: ignore[method-assign]


@contextmanager
def serving(folder: Path, cache: Path, kind: str) -> Iterator[httpx2.Client]:
    """`chorus serve` in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("CHORUS_")}
    (folder / "operator").write_text(OPERATOR)
    (folder / "operator").chmod(0o600)
    env |= {
        "CHORUS_HTTP_PORT": "0",
        "CHORUS_DATA_DIR": str(folder / "data"),
        "CHORUS_COMPILE_CACHE_DIR": str(cache),
        "CHORUS_LOG_LEVEL": "warning",
        "CHORUS_MODEL": str(cache / "toy" / "model"),
        "CHORUS_OPERATOR_KEY_FILE": str(folder / "operator"),
    }
    log = folder / "log"
    process = subprocess.Popen(
        tethered([sys.executable, __file__, "--serve", kind]), env=env, stderr=log.open("w")
    )
    try:
        while not (found := _READY.search(log.read_text())):
            if process.poll() is not None:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.2)
        with httpx2.Client(base_url=found.group(1), timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=60)


class Callers:
    """Two tenants on one server: `ours` asks, `theirs` has."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        operator = {"authorization": f"Bearer {OPERATOR}"}
        self._keys = {}
        for tenant in ("ours", "theirs"):
            self._made(client.post("/v1/tenants", json={"name": tenant}, headers=operator))
            body = {"name": "benchmark", "scopes": ["infer", "prompts:read", "prompts:write", "tune"]}
            made = self._made(client.post(f"/v1/keys?tenant={tenant}", json=body, headers=operator))
            self._keys[tenant] = made["key"]
        self.width = client.get("/v1/model", headers=self.key("ours")).json()["config"]["d_model"]

    def key(self, tenant: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self._keys[tenant]}"}

    def publish(self, tenant: str, task: str, seed: int) -> tuple[float, httpx2.Response]:
        values = np.random.default_rng(seed).standard_normal((20, self.width)).astype(np.float32)
        held = io.BytesIO()
        np.save(held, values)
        return self.timed("POST", f"/v1/tasks/{task}/versions", tenant, content=held.getvalue(), headers=RAW)

    def upload(self, tenant: str, seed: int) -> tuple[float, httpx2.Response]:
        rows = f"text\tlabel\n{seed}\tyes\n".encode() * 500
        return self.timed("POST", "/v1/files?name=rows.tsv", tenant, content=rows, headers=RAW)

    def timed(self, method: str, url: str, tenant: str, **options: Any) -> tuple[float, httpx2.Response]:
        options["headers"] = self.key(tenant) | options.get("headers", {})
        request = self._client.build_request(method, url, **options)
        begun = time.perf_counter()
        answer = self._client.send(request)
        return time.perf_counter() - begun, answer

    @staticmethod
    def _made(answer: httpx2.Response) -> Any:
        answer.raise_for_status()
        return answer.json()


def compare(ask: Callable[[bool, int], float], pairs: int) -> dict[str, Any]:
    """Times of what another has and of what nobody has, in pairs of random order."""
    order = random.Random(0)
    took = np.empty((pairs, 2))
    for n in range(pairs):
        for theirs in order.sample((True, False), 2):
            took[n, int(not theirs)] = ask(theirs, n)
    took *= 1e6
    difference = np.median(took[:, 0]) - np.median(took[:, 1])
    chance = np.random.default_rng(0)
    swapped = []
    for _ in range(SWAPS):
        swap = chance.integers(0, 2, pairs).astype(bool)
        first, second = np.where(swap, took[:, 1], took[:, 0]), np.where(swap, took[:, 0], took[:, 1])
        swapped.append(abs(np.median(first) - np.median(second)))
    bound = float(np.percentile(swapped, LEVEL))
    return {
        "pairs": pairs,
        "theirs_us": round(float(np.median(took[:, 0])), 1),
        "nobodys_us": round(float(np.median(took[:, 1])), 1),
        "difference_us": round(float(difference), 1),
        "by_chance_us": round(bound, 1),
        "told": bool(abs(difference) > bound),
    }


def measure(client: httpx2.Client, named: int, uploaded: int) -> dict[str, Any]:
    callers = Callers(client)
    _, version = callers.publish("theirs", "secret", 10**6)
    assert version.status_code == 201, version.text
    _, file = callers.upload("theirs", 10**6)
    ids = {True: ("secret", file.json()["id"]), False: ("absent", "file-" + "0" * 24)}
    ways: dict[str, tuple[str, Callable[[bool], str], Any]] = {
        "task": ("GET", lambda theirs: f"/v1/tasks/{ids[theirs][0]}", None),
        "version": ("GET", lambda theirs: f"/v1/tasks/{ids[theirs][0]}/versions/1", None),
        "file": ("GET", lambda theirs: f"/v1/files/{ids[theirs][1]}", None),
        "generate": ("POST", lambda _: "/v1/generate", lambda theirs: {"task": ids[theirs][0], "input": ""}),
    }  # fmt: skip
    found = {}
    for name, (method, url, body) in ways.items():

        def ask(theirs: bool, n: int, method: str = method, url: Any = url, body: Any = body) -> float:
            options = {} if body is None else {"json": body(theirs)}
            took, answer = callers.timed(method, url(theirs), "ours", **options)
            assert answer.status_code == 404, answer.text
            return took

        compare(ask, 50)
        found[name] = compare(ask, named)
    for n in range(uploaded):
        callers.publish("theirs", f"t{n}", n)
        callers.upload("theirs", n)

    def publish(theirs: bool, n: int) -> float:
        took, answer = callers.publish("ours", f"{'t' if theirs else 'n'}{n}", n + (not theirs) * 10_000)
        assert answer.status_code == 201 and answer.json()["created"], answer.text
        return took

    def upload(theirs: bool, n: int) -> float:
        took, answer = callers.upload("ours", n + (not theirs) * 10_000)
        assert answer.status_code == 201, answer.text
        return took

    found["upload of values"] = compare(publish, uploaded)
    found["upload of a file"] = compare(upload, uploaded)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, help=f"of each (default {NAMED} named, {UPLOADED} uploaded)")
    parser.add_argument("--cache", type=Path, help="folder for the toy model and what is compiled")
    parser.add_argument("--serve", choices=["sound", "leaks"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        if arguments.serve == "leaks":
            leak()
        from chorus.cli import main as chorus

        sys.argv = ["chorus", "serve"]
        chorus()
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks") as folder:
        cache = arguments.cache or Path(folder)
        if not (cache / "toy").exists():
            make = [sys.executable, ROOT / "scripts" / "make_toy_model.py", cache / "toy"]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        for kind in ("sound", "leaks"):
            place = Path(folder) / kind
            place.mkdir()
            with serving(place, cache, kind) as client:
                found[kind] = measure(client, arguments.pairs or NAMED, arguments.pairs or UPLOADED)
            for name, one in found[kind].items():
                print(f"{kind:6} {name:18} {json.dumps(one)}")
    if arguments.pairs is None:
        where = machine()
        date = datetime.now(UTC).date().isoformat()
        target = ROOT / "benchmarks" / "results" / f"{date}-{where['name']}-absent.json"
        content = {"what": "absent", "date": date, "machine": where, **found}
        content["versions"] = versions(Path(sys.executable))
        target.write_text(json.dumps(content, indent=1) + "\n")
        print(f"kept in {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
