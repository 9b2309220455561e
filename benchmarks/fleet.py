"""What one replica asks of a PostgreSQL with a million tasks, so that a fleet can be worked out.

    python benchmarks/fleet.py                          1,000,000 tasks of 10,000 tenants, some five minutes
    python benchmarks/fleet.py --tasks 20000 --seconds 10 --keys 1000     a trial

Everything is what serves, but for the device, which is in memory: store, change feed, limits, usage, health,
collector, runners of jobs, HTTP. Counted are the statements that reach the database, each with its verb and
table; timed are the store's calls, as their threads see them. *Idle*: nobody asks. *Busy*: one caller asks
`--rate` requests a second of 64 tasks, of a tenant with limits. *Bytes*: of a version and of a key that the
process remembers. *Writes*: how many replicas' seconds of writing the database takes each second, where
`--writers` processes do nothing else: two transactions under the publish lock, and usage beside each other.
PostgreSQL syncs nothing here; a commit on a disk takes a sync more.
Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import event, text

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from keys import fill as fill_keys
from machine import machine

from chorus_server.api.lifecycle import spare_collections
from chorus_server.jobs_wiring import start_engine_jobs
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.process import upkept
from chorus_server.tenancy.principal import Scope
from prompts_store.budgets.records import LeaseAsk
from prompts_store.database import EVERY_TENANT
from prompts_store.store import PromptStore
from prompts_store.tenants.limits import TenantLimits
from prompts_store.usage.records import UsageRow
from tests.postgres_server import PostgresServer, binaries
from tests.server.api.api_harness import FINGERPRINT, WIDTH, ApiServer, train_vocabulary

LIMITS = {
    "per_minute": {"requests": 1_000_000, "tokens": 100_000_000},
    "per_month": {"requests": {"hard": 10**9}},
}
WARM_TASKS = 64
CALLS = (
    "check_readable", "check_writable", "changes_after", "lease_budgets", "record_usage", "claim_job",
    "touch_keys", "resolve",
)  # fmt: skip
_ROWS = (
    "INSERT INTO tenants (name, display_name, weight, status, limits, created_at, created_by) "
    "SELECT 'tenant-' || n, '', 1, 'active', '{}', 1700000000000000, '' FROM generate_series(1, :tenants) n",
    "INSERT INTO stored_use (tenant, prompts, prompt_bytes, file_bytes) "
    "SELECT 'tenant-' || n, :tasks / :tenants, 0, 0 FROM generate_series(1, :tenants) n",
    "INSERT INTO blobs (digest, size_bytes, reference_count) "
    "SELECT md5('a' || n) || md5('b' || n), 480, 1 FROM generate_series(1, :tasks) n",
    "INSERT INTO tasks (id, tenant, name, description, created_at, last_number, live_versions, deleted_by) "
    "SELECT n, 'tenant-' || (1 + n % :tenants), 'task-' || n, 'messages', 1700000000000000 + n, 1, "
    "1, '' FROM generate_series(1, :tasks) n",
    "INSERT INTO versions (task_id, number, kind, digest, blob_digest, manifest_digest, length, width, "
    "base_fingerprint, template, labels, settings, lineage, metrics, created_at, created_by, deleted_by) "
    "SELECT n, 1, 'soft_prompt', md5('a' || n) || md5('b' || n), md5('a' || n) || md5('b' || n), "
    "md5('c' || n) || md5('d' || n), 20, :width, :base, 'message: {text}', '[\"negative\", \"positive\"]', "
    "'{\"max_new_tokens\": 4}', '{}', '{}', 1700000000000000 + n, '', '' FROM generate_series(1, :tasks) n",
    "INSERT INTO aliases (owner_id, alias, number) SELECT n, 'live', 1 FROM generate_series(1, :tasks) n",
    "SELECT setval(pg_get_serial_sequence('tasks', 'id'), :tasks)",
    "ANALYZE",
)


class Replica(ApiServer):
    """A server with all that a serving process runs beside its requests."""

    def background(self) -> list[Coroutine[Any, Any, None]]:
        return [self._upkeep()]

    async def _upkeep(self) -> None:
        # What a collection asks comes once an hour, from one replica.
        async with upkept(self._app, collecting=False):
            await asyncio.Event().wait()


class Timed:
    """Seconds of each call of the store, by its name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, name: str) -> None:
        honest: Callable[..., Any] = getattr(PromptStore, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return honest(*args, **kwargs)
            finally:
                self.seconds[name].append(time.perf_counter() - begun)

        setattr(PromptStore, name, timed)

    def take(self, seconds: float) -> dict[str, dict[str, float]]:
        """Calls a second and their median in milliseconds, since this was asked last."""
        taken, self.seconds = self.seconds, defaultdict(list)
        return {
            name: {
                "a_second": round(len(some) / seconds, 2),
                "p50_ms": round(1000 * float(np.median(some)), 2),
            }
            for name, some in sorted(taken.items())
        }


def statement_of(sql: str) -> str:
    """Its verb and its table."""
    words = sql.split()
    verb = words[0].upper() if words else ""
    for before in ("FROM", "INTO", "UPDATE"):
        if before in (upper := [word.upper() for word in words]) and upper.index(before) + 1 < len(words):
            return f"{verb} {words[upper.index(before) + 1].strip('(),')}"
    return " ".join(words[:2])


@contextmanager
def counted(store: PromptStore, found: Counter[str]) -> Iterator[None]:
    engine = store._database.engine

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        found[statement_of(statement)] += 1

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", note)


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def fill(store: PromptStore, tasks: int, tenants: int) -> float:
    begun = time.perf_counter()
    values = {"tasks": tasks, "tenants": tenants, "width": WIDTH, "base": FINGERPRINT}
    with store._database.write(EVERY_TENANT) as connection:
        for statement in _ROWS:
            names = [name for name in values if f":{name}" in statement]
            connection.execute(text(statement), {name: values[name] for name in names})
    return round(time.perf_counter() - begun, 1)


def rates(found: Counter[str], seconds: float) -> dict[str, float]:
    by_kind = {
        name: round(count / seconds, 2) for name, count in found.most_common() if count >= seconds / 10
    }
    return {"statements": round(found.total() / seconds, 1), **by_kind}


def ask(server: ApiServer, rate: float, seconds: float) -> int:
    """Requests that were answered."""
    begun, sent, pause = time.perf_counter(), 0, threading.Event()
    while (now := time.perf_counter() - begun) < seconds:
        task = f"warm-{sent % WARM_TASKS}"
        server.http.post("/v1/generate", json={"task": task, "input": "good film"}).raise_for_status()
        sent += 1
        pause.wait(max(0.0, sent / rate - now))
    return sent


def bytes_of_versions(server: ApiServer, tasks: int, tenants: int) -> dict[str, float]:
    """Of as many versions as one process remembers."""
    library, count = server.services.library, min(4096, tasks)

    async def resolve_all() -> None:
        for n in range(1, count + 1):
            async with library.held([(f"task-{n}", "task")], f"tenant-{1 + n % tenants}", FINGERPRINT):
                pass

    assert server.loop is not None
    library.forget()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    asyncio.run_coroutine_threadsafe(resolve_all(), server.loop).result()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"remembered": len(library._versions), "bytes_each": round(used / len(library._versions))}


def bytes_of_keys(server: ApiServer, count: int) -> dict[str, float]:
    callers, keys = server.services.callers, fill_keys(server.store, count)

    async def authorise_all() -> None:
        for key in keys:
            await callers.authorise(f"Bearer {key}", Scope.INFER, "192.0.2.1")

    assert server.loop is not None
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    asyncio.run_coroutine_threadsafe(authorise_all(), server.loop).result()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"remembered": len(callers._keys), "bytes_each": round(used / len(callers._keys))}


def write_like_a_replica(url: str, folder: str, seconds: float, rows: int, results: Any) -> None:
    """What a replica writes each second, again and again: rounds that were done."""
    store, begun, rounds = PromptStore.open(Path(folder), database_url=url), time.perf_counter(), 0
    replica = os.urandom(8).hex()
    while time.perf_counter() - begun < seconds:
        store.check_writable(30)
        ask = LeaseAsk(f"tenant-{1 + rounds % 100}", "", "per_minute.requests", 10**6, 0, ahead=10)
        store.lease_budgets(replica, [ask])
        used = [
            UsageRow(
                rounds * rows + n + 1,
                datetime.now(UTC),
                "tenant-1",
                "",
                "tenant-1/task-1",
                "",
                "answered",
                20,
                4,
                24,
                "call",
                0,
            )
            for n in range(rows)
        ]
        store.record_usage(replica, used)
        rounds += 1
    store.close()
    results.put(rounds)


def writes(url: str, folder: Path, writers: int, seconds: float, rows: int) -> dict[str, float]:
    """Replicas' seconds of writing that the database takes each second."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (url, str(folder), seconds, rows, results)
    started = [context.Process(target=write_like_a_replica, args=arguments) for _ in range(writers)]
    for process in started:
        process.start()
    rounds = sum(results.get() for _ in started)
    for process in started:
        process.join()
    return {"writers": writers, "usage_rows_a_round": rows, "rounds_a_second": round(rounds / seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--writers", type=int, default=4)
    given = parser.parse_args()
    programs = binaries()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (Debian: apt install postgresql)")
    timed, postgres = Timed(), PostgresServer(programs)
    logging.getLogger("chorus").setLevel(logging.ERROR)
    for name in CALLS:
        timed.watch(name)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder, url = Path(scratch), postgres.create()
            vocabulary = Vocabulary.load(train_vocabulary(folder), extra_ids=4)
            with Replica(folder / "data", vocabulary, database_url=url) as server:
                filled = fill(server.store, given.tasks, given.tenants)
                for n in range(WARM_TASKS):
                    server.push(f"warm-{n}", seed=n)
                server.store.update_tenant("default", limits=TenantLimits.read(LIMITS))
                tell(f"filled in {filled} s")
                start_engine_jobs(server.services)
                spare_collections()
                ask(server, given.rate, 3.0)
                idle, busy = Counter[str](), Counter[str]()
                time.sleep(12.0)  # what was leased is given back
                timed.take(1.0)
                with counted(server.store, idle):
                    time.sleep(given.seconds)
                calls_idle = timed.take(given.seconds)
                tell(f"idle: {json.dumps(rates(idle, given.seconds))}")
                with counted(server.store, busy):
                    answered = ask(server, given.rate, given.seconds)
                calls_busy = timed.take(given.seconds)
                tell(f"busy: {json.dumps(rates(busy, given.seconds))}")
                begun = time.perf_counter()
                server.store.collect(grace_seconds=3600, allow_mass_removal=True)
                found = {
                    "machine": machine(),
                    "load_average": [round(each, 1) for each in os.getloadavg()],
                    "tasks": given.tasks,
                    "tenants": given.tenants,
                    "filled_in_seconds": filled,
                    "idle_a_second": rates(idle, given.seconds),
                    "idle_calls": calls_idle,
                    "requests_a_second": round(answered / given.seconds, 1),
                    "busy_a_second": rates(busy, given.seconds),
                    "busy_calls": calls_busy,
                    "collection_seconds": round(time.perf_counter() - begun, 2),
                    "version": bytes_of_versions(server, given.tasks, given.tenants),
                    "key": bytes_of_keys(server, given.keys),
                }
            tell(json.dumps(found))
            found["writes"] = [
                writes(url, folder / "data", given.writers, given.seconds / 2, rows)
                for rows in (0, round(given.rate))
            ]
    finally:
        postgres.stop()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
