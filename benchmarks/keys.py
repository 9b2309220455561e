"""What checking a key costs at 100,000 keys, and how soon another process sees what one changed.

    python benchmarks/keys.py                  about two minutes; writes a result
    python benchmarks/keys.py --keys 1000      a small trial

*Warm*: the key is remembered, as it is from its second use on. *Cold*: it is looked up in the database, on a
reader's thread. *Unknown*: keys with a right checksum that nobody has, as fast as one address can send them;
counted are the queries. *Seen*: from the commit of a revocation through one store to its refusal by those on
another, who follow the feed every 250 ms.
Writes benchmarks/results/DATE-MACHINE-keys.json, unless --keys is given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from machine import machine

from chorus_server.api.http.offload import Offload
from chorus_server.api.library.resolve import PromptLibrary
from chorus_server.changes.reader import ChangeReader
from chorus_server.errors import ChorusError
from chorus_server.metrics import MetricsRegistry
from chorus_server.tenancy.callers import Callers
from chorus_server.tenancy.keys import KeyRing
from chorus_server.tenancy.last_use import LastUse
from chorus_server.tenancy.metrics import TenancyMetrics
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.database import EVERY_TENANT
from prompts_store.database.tenant_tables import keys as key_table
from prompts_store.store import PromptStore
from prompts_store.tenants.key_format import key_digest, make_key, public_part

ROOT = Path(__file__).parents[1]
KEYS, TENANTS, COLD, UNKNOWN_SECONDS, REVOKED = 100_000, 1000, 2000, 5.0, 100


def fill(store: PromptStore, count: int) -> list[str]:
    """Keys of many tenants, written at once: only their reading is measured."""
    tenants = min(TENANTS, count)
    for n in range(tenants):
        store.create_tenant(f"t{n}")
    made = [make_key() for _ in range(count)]
    now = datetime.now(UTC)
    rows: list[dict[str, Any]] = [
        {
            "id": f"key-{n:024x}", "tenant": f"t{n % tenants}", "public": public_part(key),
            "digest": key_digest(key), "name": f"k{n}", "scopes": ["infer"], "tasks": None, "limits": {},
            "created_at": now, "created_by": "",
        }
        for n, key in enumerate(made)
    ]  # fmt: skip
    with store._database.write(EVERY_TENANT) as connection:
        for start in range(0, count, 10_000):
            connection.execute(insert(key_table), rows[start : start + 10_000])
    return made


@contextmanager
def opened(folder: Path) -> Iterator[tuple[PromptStore, Callers, ChangeReader]]:
    """One process's callers on a store."""
    store = PromptStore.open(folder)
    library = PromptLibrary(store, Offload(4, 512, "readers"), Offload(4, 512, "writers"))
    ring = KeyRing({}, Principal("default", "anonymous"))
    callers = Callers(
        store,
        ring,
        library.ask,
        LastUse(store, library.save),
        TenancyMetrics(MetricsRegistry()),
        keyless=False,
    )
    thread = Offload(1, 1, "feed")
    reader = ChangeReader(store, thread, (callers,), library.health.note_feed)
    try:
        yield store, callers, reader
    finally:
        thread.close()
        library.close()


def told(samples: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(1000 * sample for sample in samples)
    return {
        "median_ms": round(statistics.median(ordered), 4),
        "p99_ms": round(ordered[int(0.99 * (len(ordered) - 1))], 4),
        "worst_ms": round(ordered[-1], 4),
    }


async def timed(call: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await call
    return time.perf_counter() - begun


async def measure(folder: Path, count: int) -> dict[str, Any]:
    with opened(folder) as (store, callers, reader), opened(folder) as (other, _, _):
        made = fill(store, count)
        headers = [f"Bearer {key}" for key in made]
        following = asyncio.create_task(reader.follow())
        await reader.read()
        chosen = random.Random(0).sample(headers, min(COLD, count))
        cold = [await timed(callers.authorise(header, Scope.INFER, "192.0.2.1")) for header in chosen]
        for header in headers:
            await callers.authorise(header, Scope.INFER, "192.0.2.1")
        order = random.Random(1).choices(headers, k=100_000)
        await reader.read()
        warm, missed = [], 0
        for n, header in enumerate(order):
            begun = time.perf_counter()
            known = callers.known(header, Scope.INFER)
            warm.append(time.perf_counter() - begun)
            missed += known is None
            if n % 1000 == 0:
                await asyncio.sleep(0)
        unknown = await guess(store, callers)
        seen = await revoke(other, callers, made)
        following.cancel()
        return {
            "keys": count,
            "warm": told(warm) | {"not_remembered": missed},
            "cold": told(cold),
            "unknown": unknown,
            "revocation_seen": told(seen),
        }


async def guess(store: PromptStore, callers: Callers) -> dict[str, float]:
    """Queries a second while one address sends keys that nobody has."""
    asked, honest, find = 0, store.find_key, "find_key"

    def counted(public: str) -> Any:
        nonlocal asked
        asked += 1
        return honest(public)

    setattr(store, find, counted)
    begun, sent = time.perf_counter(), 0
    while (seconds := time.perf_counter() - begun) < UNKNOWN_SECONDS:
        try:
            await callers.authorise(f"Bearer {make_key()}", Scope.INFER, "192.0.2.9")
        except ChorusError:
            sent += 1
    return {"sent_a_second": round(sent / seconds), "queries_a_second": round(asked / seconds, 1)}


async def revoke(store: PromptStore, callers: Callers, made: list[str]) -> list[float]:
    """Seconds from the commit of each revocation to the refusal."""
    seen = []
    for n in range(min(REVOKED, len(made))):
        header, tenant = f"Bearer {made[n]}", f"t{n % min(TENANTS, len(made))}"
        await callers.authorise(header, Scope.INFER, "192.0.2.1")
        await asyncio.to_thread(store.revoke_key, tenant, f"key-{n:024x}")
        begun = time.perf_counter()
        while await let_in(callers, header):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        seen.append(time.perf_counter() - begun)
    return seen


async def let_in(callers: Callers, header: str) -> bool:
    try:
        await callers.authorise(header, Scope.INFER, "192.0.2.1")
    except ChorusError:
        return False
    return True


def keep(what: str, result: dict[str, Any], *, trial: bool) -> None:
    """Print a result with its machine, and unless it is a trial, write it among the others."""
    here, now = machine(), datetime.now(UTC)
    document = {"what": what, "date": f"{now:%Y-%m-%d}", "machine": here, **result}
    text = json.dumps(document, indent=1) + "\n"
    sys.stdout.write(text)
    if not trial:
        (ROOT / f"benchmarks/results/{now:%Y-%m-%d}-{here['name']}-{what}.json").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--keys", type=int, help=f"in place of {KEYS:,}; a trial")
    count = parser.parse_args().keys
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Path(folder), count or KEYS))
    keep("keys", result, trial=count is not None)


if __name__ == "__main__":
    main()
