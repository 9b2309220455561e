"""What a limit costs a request at 100,000 keys, and how soon a request over a limit is refused.

    python benchmarks/budgets.py                  about two minutes; writes a result
    python benchmarks/budgets.py --keys 1000      a small trial

*Warm*: a key that is remembered, of which enough is leased: the key is checked, the request reserved and
settled. *Cold*: key and limits are looked up, and the first lease is taken, in SQLite. Every key and every
tenant has limits a minute and a month, in requests and tokens. *Refused*: over HTTP by `chorus serve`, one
connection and 32 at once, of a tenant whose minute is used up; server and sender have a core each.
Writes benchmarks/results/DATE-MACHINE-budgets.json, unless --keys is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import update

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parent))
from keys import fill, keep, opened, told

from chorus_server.api.http.offload import Offload
from chorus_server.api.lifecycle import spare_collections
from chorus_server.engine.requests import GenerateRequest, Origin
from chorus_server.engine.work import Settled
from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.budgets import Budgets
from chorus_server.tenancy.metrics import BudgetMetrics
from chorus_server.tenancy.principal import Scope
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tenant_tables import keys as key_table
from prompts_store.database.tenant_tables import tenants as tenant_table
from prompts_store.store import PromptStore
from prompts_store.tenants.limits import TenantLimits
from tether import tethered

ROOT = Path(__file__).parents[1]
KEYS, COLD, USES, REFUSED, AT_ONCE = 100_000, 1000, 50_000, 2000, 32
LIMITS = {
    "per_minute": {"requests": 1_000_000, "tokens": 100_000_000},
    "per_month": {"requests": {"soft": 10**9, "hard": 10**10}, "tokens": {"hard": 10**12}},
}
INPUT = (tuple(range(40)),)


def one(n: int) -> GenerateRequest:
    return GenerateRequest(Origin(f"id.{n}", "t"), INPUT)


async def measure(folder: Path, count: int) -> dict[str, Any]:
    """Warm and cold, in one process."""
    with opened(folder) as (store, callers, reader):
        made = fill(store, count)
        with store._database.write(EVERY_TENANT) as connection:
            connection.execute(update(key_table).values(limits=LIMITS))
            connection.execute(update(tenant_table).values(limits=LIMITS))
        thread = Offload(1, 2, "budgets")
        budgets = Budgets(store.lease_budgets, thread, BudgetMetrics(MetricsRegistry()))
        await reader.read()
        spare_collections()  # as a server does that has started
        following = [asyncio.create_task(reader.follow()), asyncio.create_task(budgets.follow())]
        headers = [f"Bearer {key}" for key in random.Random(0).sample(made, min(COLD, count))]
        cold = []
        for n, header in enumerate(headers):
            begun = time.perf_counter()
            caller = await callers.authorise(header, Scope.INFER, "192.0.2.1")
            await budgets.reserve(caller, [one(n)])
            cold.append(time.perf_counter() - begun)
            budgets.settle(Settled(Origin(f"id.{n}", "t"), "answered", 40, 8, 48))
        few = headers[:100]
        for header in few:  # enough is leased from here on
            caller = await callers.authorise(header, Scope.INFER, "192.0.2.1")
            await budgets.reserve(caller, [one(n) for n in range(1000)])
            budgets.release(f"id.{n}" for n in range(1000))
        warm, asked = [], 0
        for n in range(USES):
            request, header = one(n), few[n % len(few)]
            settled = Settled(request.origin, "answered", 40, 8, 48)
            begun = time.perf_counter()
            known = callers.known(header, Scope.INFER)
            if known is None:  # the feed has not been read for a second
                asked += 1
                continue
            waits = budgets.reserve(known, [request])
            try:
                waits.send(None)
            except StopIteration:
                budgets.settle(settled)
                warm.append(time.perf_counter() - begun)
            else:
                asked += 1
                waits.close()
            if n % 100 == 0:
                await asyncio.sleep(0)
        for each in following:
            each.cancel()
        budgets.close()
        return {"keys": count, "warm": told(warm) | {"not_warm": asked}, "cold": told(cold)}


async def refused(port: int, at_once: int) -> dict[str, float]:
    """Milliseconds from sending a request to having its refusal.

    The connections are open before. Requests are bytes that were made once, and of an answer only the status
    and the length are read, so that the sender's own work is a small part of what is measured.
    """
    samples: list[float] = []
    body = json.dumps({"task": None, "inputs": ["a warm and funny film"] * 8, "max_new_tokens": 4}).encode()
    head = f"POST /v1/generate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body

    async def ask(open_: tuple[asyncio.StreamReader, asyncio.StreamWriter], count: int) -> None:
        reader, writer = open_
        for _ in range(count):
            begun = time.perf_counter()
            writer.write(request)
            answered = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", answered)
            assert length is not None, answered
            await reader.readexactly(int(length[1]))
            if answered.startswith(b"HTTP/1.1 429"):
                samples.append(time.perf_counter() - begun)

    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(at_once)]
    for each in connections:
        await ask(each, 2)
    samples.clear()
    await asyncio.gather(*(ask(each, REFUSED // at_once) for each in connections))
    for _, writer in connections:
        writer.close()
    return told(samples) | {"refused": len(samples)}


def over_http(folder: Path) -> dict[str, Any]:
    with closing(PromptStore.open(folder)) as store:
        limits = TenantLimits.model_validate({"per_minute": {"requests": 8}})
        store.create_tenant("default", limits=limits)
    cores = os.sched_getaffinity(0)
    command = [
        "taskset",
        "--cpu-list",
        str(min(cores)),
        str(ROOT / ".venv/bin/chorus"),
        "serve",
        "--port",
        "0",
        "--shapes",
        "small",
    ]
    environment = os.environ | {"CHORUS_DATA_DIR": str(folder), "CHORUS_TUNING_ENABLED": "false"}
    with subprocess.Popen(
        tethered(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        ready = (re.search(r"ready at http://\S+:(\d+)", line) for line in server.stdout)
        port = next(int(found[1]) for found in ready if found)
        os.sched_setaffinity(0, {max(cores)})
        result = {
            "one_connection": asyncio.run(refused(port, 1)),
            "at_once": asyncio.run(refused(port, AT_ONCE)),
        }
        os.sched_setaffinity(0, cores)
        server.terminate()
        server.communicate(timeout=60)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keys", type=int, help=f"in place of {KEYS:,}; a trial")
    count = parser.parse_args().keys
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Path(folder), count or KEYS))
    with tempfile.TemporaryDirectory() as folder:
        result["refused_over_http"] = over_http(Path(folder))
    keep("budgets", result, trial=count is not None)


if __name__ == "__main__":
    main()
