"""The prompt store with a million versions: resolving, listing, publishing, opening, memory.

    python benchmarks/registry.py                      1,000,000 versions in a temporary folder (about 1.5 GB)
    python benchmarks/registry.py --versions 20000     a small trial
    python benchmarks/registry.py --folder F           keep the folder, and use it again

Rows are made by SQL in the store's own tables, then a few thousand versions are published for real. Each kind
of measurement runs in a process of its own, which opens the store anew. Writes
benchmarks/results/DATE-MACHINE-registry.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, versions

ROOT = Path(__file__).parents[1]
GOALS = {"resolve_p50_ms": 1.0, "list_page_p50_ms": 20.0, "open_seconds": 5.0, "server_built_seconds": 5.0}
TENANTS, BIG = 40, "tenant-00"
DEEP = 20
"""Tasks of a thousand versions each; the others have four. A third of all tasks belong to one tenant."""

_TASKS = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :tasks)
INSERT INTO tasks (id, tenant, name, description, created_at, deleted_at, last_number, live_versions,
    deleted_by)
SELECT i + 1, printf('tenant-%02d', CASE WHEN i % 3 = 0 THEN 0 ELSE 1 + i % (:tenants - 1) END),
       printf('task-%07d', i), 'Sentiment of customer messages, set ' || i, 1.7e15 + i * 1000, NULL,
       CASE WHEN i < :deep THEN :many ELSE 4 END, CASE WHEN i < :deep THEN :many ELSE 4 END, ''
FROM n
"""
VERSIONS = """
WITH RECURSIVE k(j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM k WHERE j + 1 <= :many),
-- Materialised: each row's digest is drawn once, however often it is named.
drawn AS MATERIALIZED (SELECT t.id, t.created_at, j, lower(hex(randomblob(32))) AS d FROM tasks t, k
                       WHERE j <= t.last_number)
INSERT INTO versions (task_id, number, kind, digest, blob_digest, manifest_digest, length, width,
    base_fingerprint, template, labels, settings, lineage, metrics, created_at, created_by, deleted_at,
    deleted_by)
SELECT t.id, j, 'soft_prompt', d, d, lower(hex(randomblob(32))), 100, 512, :base,
       'sst2 sentence: {text}', '["negative","positive"]', '{"max_new_tokens":4}',
       '{"job":"job-' || t.id || '","dataset":"sha256:' || d || '","recipe":{"steps":30000,"batch_size":32,'
       || '"learning_rate":0.3,"initialiser":"class_labels"},"seed":' || j || '}',
       '{"accuracy":0.9' || j || ',"loss":0.2}', t.created_at + j, 'key-' || (t.id % 997), NULL, ''
FROM drawn AS t
"""
REST = (
    "INSERT INTO blobs SELECT digest, 204928, 1, NULL FROM versions",
    "INSERT INTO aliases SELECT id, 'live', last_number FROM tasks",
    "INSERT INTO aliases SELECT id, 'canary', 1 FROM tasks WHERE id % 2",
    "INSERT INTO alias_moves (owner_id, alias, number, previous, back_id, moved_at, moved_by) "
    "SELECT owner_id, alias, number, NULL, NULL, 1.7e15, 'bulk' FROM aliases",
    "INSERT INTO task_labels SELECT tenant, 'positive', name, id FROM tasks",
    "INSERT INTO task_labels SELECT tenant, 'negative', name, id FROM tasks",
    "INSERT INTO stored_use SELECT tenant, COUNT(*), SUM(4 * length * width), 0 "
    "FROM versions JOIN tasks ON tasks.id = task_id GROUP BY tenant",
    "ANALYZE",
)


def fill(folder: Path, count: int) -> dict[str, Any]:
    """Make the store's tables and this many versions in them."""
    from prompts_store.store import PromptStore

    PromptStore.open(folder).close()
    many = min(1000, count // 100)
    numbers = {"tasks": DEEP + (count - DEEP * many) // 4, "tenants": TENANTS, "deep": DEEP, "many": many}
    started = time.perf_counter()
    with sqlite3.connect(folder / "chorus.db", isolation_level=None) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.execute(_TASKS, numbers)
        connection.execute(VERSIONS, numbers | {"base": "b" * 64})
        for statement in REST:
            connection.execute(statement)
        connection.execute("COMMIT")
        made = {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("versions", "tasks", "aliases", "blobs", "task_labels")
        }
    connection.close()
    size = (folder / "chorus.db").stat().st_size
    return {"rows": made, "database_bytes": size, "seconds": round(time.perf_counter() - started, 1)}


def spread(calls: Iterator[Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each call."""
    taken = []
    for call in calls:
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    ordered = sorted(taken)
    return {
        "calls": len(taken), "p50_ms": round(statistics.median(taken), 3),
        "p99_ms": round(ordered[int(len(ordered) * 0.99) - 1], 3), "worst_ms": round(ordered[-1], 3),
    }  # fmt: skip


def rss_mib() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


def measure_open(folder: Path) -> dict[str, Any]:
    from prompts_store.store import PromptStore

    before, started = rss_mib(), time.perf_counter()
    store = PromptStore.open(folder)
    opened = time.perf_counter() - started
    page = store.list_tasks(BIG)
    version = store.resolve(page.items[-1].name, tenant=BIG)
    assert version.number >= 1
    ready = time.perf_counter() - started
    return {
        "open_seconds": round(opened, 3),
        "first_answers_seconds": round(ready, 3),
        "rss_mib": [before, rss_mib()],
    }


def measure_server(folder: Path) -> dict[str, Any]:
    """Everything of a start but the model."""
    from chorus_server.app import build_app, close_app
    from chorus_server.settings import Settings

    started = time.perf_counter()
    app = build_app(Settings(model="none", data_dir=folder))
    built = time.perf_counter() - started
    close_app(app)
    return {"server_built_seconds": round(built, 3)}


def measure_reads(folder: Path) -> dict[str, Any]:
    from prompts_store.store import PromptStore

    store, generator = PromptStore.open(folder), random.Random(7)
    with sqlite3.connect(folder / "chorus.db") as connection:
        (count,) = connection.execute("SELECT max(id) FROM tasks").fetchone()
        keys = [generator.randint(1, count) for _ in range(min(6000, 3 * count))]
        names = [
            connection.execute("SELECT tenant, name FROM tasks WHERE id=?", (key,)).fetchone() for key in keys
        ]
        deep = connection.execute("SELECT tenant, name FROM tasks WHERE id=1").fetchone()
    connection.close()

    def resolved(suffix: str) -> dict[str, float]:
        return spread((lambda t=t, n=n: store.resolve(n + suffix, tenant=t)) for t, n in names)

    def paged(wanted: int, **filters: Any) -> Iterator[Callable[[], Any]]:
        cursors: list[str | None] = [None]

        def following() -> None:
            cursors[0] = store.list_tasks(BIG, cursor=cursors[0], **filters).next_cursor

        yield following
        while wanted > 1 and cursors[0] is not None:
            yield following
            wanted -= 1

    before = rss_mib()
    found = {
        "resolve_live": resolved(""),
        "resolve_number": resolved("@2"),
        "resolve_canary_or_unknown": spread(
            (lambda t=t, n=n: _try(store, n + "@canary", t)) for t, n in names[:2000]
        ),
        "list_page_50": spread(paged(400)),
        "list_page_500": spread(paged(100, limit=500)),
        "list_page_by_label": spread(paged(400, label="positive")),
        "list_page_by_prefix": spread(paged(200, prefix="task-01")),
        "list_versions_page": spread(
            (lambda: store.list_versions(deep[0], deep[1], limit=50)) for _ in range(200)
        ),
        "get_task": spread((lambda t=t, n=n: store.get_task(t, n)) for t, n in names[:2000]),
    }
    return {"calls": found, "rss_mib": [before, rss_mib()]}


def _try(store: Any, reference: str, tenant: str) -> None:
    from prompts_store.errors import NotFoundError

    with contextlib.suppress(NotFoundError):
        store.resolve(reference, tenant=tenant)


def measure_writes(folder: Path, publishes: int) -> dict[str, Any]:
    """Real versions, half of them in new tasks; then moves, deletions, and a collection of everything."""
    from prompts_store.digests import prompt_digest
    from prompts_store.records import PromptManifest
    from prompts_store.store import PromptStore

    store, generator = PromptStore.open(folder), np.random.default_rng(int(time.time()))
    run = f"published-{int(time.time())}"

    def publish(index: int) -> Callable[[], Any]:
        values = generator.normal(0, 5, (20, 512)).astype(np.float32)
        manifest = PromptManifest(
            digest=prompt_digest(values), length=20, width=512, base_fingerprint="b" * 64,
            template="sst2 sentence: {text}", labels=("negative", "positive"), settings={"max_new_tokens": 4},
        )  # fmt: skip
        return lambda: store.publish(BIG, f"{run}-{index // 2}", values, manifest, created_by="benchmark")

    before = rss_mib()
    found = {"publish": spread(publish(index) for index in range(publishes))}
    move = (
        (lambda i=i: store.set_alias(BIG, f"{run}-{i}", "canary", 2, moved_by="b"))
        for i in range(publishes // 2)
    )
    found["move_alias"] = spread(move)
    drop = ((lambda i=i: store.delete_task(BIG, f"{run}-{i}", deleted_by="b")) for i in range(publishes // 2))
    found["delete_task"] = spread(drop)
    collected = []
    for _ in range(2):  # what was deleted, then nothing
        started = time.perf_counter()
        report = store.collect(grace_seconds=0, allow_mass_removal=True)
        seconds = round(time.perf_counter() - started, 4)
        collected.append({"seconds": seconds, "blobs": report.blobs})
    return {"calls": found, "collect": collected, "rss_mib": [before, rss_mib()]}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "open": measure_open,
    "server": measure_server,
    "reads": measure_reads,
    "writes": measure_writes,
}


def child(what: str, folder: Path, *more: int) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [
        sys.executable,
        __file__,
        "--measure",
        what,
        "--folder",
        str(folder),
        "--more",
        *map(str, more),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(what, json.dumps(answer, indent=1), flush=True)
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=1_000_000)
    parser.add_argument("--publishes", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="keep the store here; used as it is when it is there")
    parser.add_argument("--out", type=Path, help="result file")
    parser.add_argument("--measure", choices=tuple(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--more", type=int, nargs="*", default=(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.folder, *options.more)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        setup = fill(folder, options.versions) if not (folder / "chorus.db").exists() else {}
        print("set-up", json.dumps(setup), flush=True)
        found = {what: child(what, folder) for what in ("open", "server", "reads")}
        found["writes"] = child("writes", folder, options.publishes)
    save(options, setup, found)


def save(options: argparse.Namespace, setup: dict[str, Any], found: dict[str, Any]) -> None:
    calls = found["reads"]["calls"]
    reached = {
        "resolve_p50_ms": calls["resolve_live"]["p50_ms"],
        "list_page_p50_ms": calls["list_page_50"]["p50_ms"],
        "open_seconds": found["open"]["open_seconds"],
        "server_built_seconds": found["server"]["server_built_seconds"],
    }
    where = machine()
    record = {
        "what": "registry", "date": datetime.now(UTC).date().isoformat(), "machine": where,
        "versions": versions(Path(sys.executable)) | {"sqlite": sqlite3.sqlite_version},
        "load_average": os.getloadavg()[0], "asked": options.versions, "set_up": setup,
        "goals": GOALS, "reached": reached,
        "all_reached": all(reached[name] <= goal for name, goal in GOALS.items()), "measured": found,
    }  # fmt: skip
    target = (
        options.out or ROOT / "benchmarks" / "results" / f"{record['date']}-{where['name']}-registry.json"
    )
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(reached), "all reached" if record["all_reached"] else "NOT all reached", target.name)


if __name__ == "__main__":
    main()
