"""What seven kinds of neighbour cost a quiet tenant, over HTTP on a real server.

    python benchmarks/serving/neighbours.py                        8 minutes, most of them for 10,000 uploads
    python benchmarks/serving/neighbours.py --seconds 2 --tasks 50 --quick

The quiet tenant sends a request about every 300 ms. Measured for each neighbour: its p50 and p99 alone,
beside the neighbour, and in a control. The control of the tenant that only trains is a server that gives
training nine tenths of the time; that of all others is that the quiet tenant uses the neighbour's key, so
that its requests stand in the neighbour's line, and of the one at its hard limit that it has none. The server
runs on one core and the sender on another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from machine import machine, versions
from open_loop import Shot
from tenants import PROMPT_ROWS, Tenants, bodies, latency_ms, npy

ROOT = Path(__file__).parents[2]
EVERY_SECONDS, NEW_TOKENS, COLD_TASKS = 0.3, 16, 200
_LIMIT, _LIMITED_RATE = {"per_minute": {"requests": 10}}, 1000.0
SETTINGS = {
    # 512 rows hold 25 of the cold tasks' prompts on the device, and 1 MiB 51 of them on the host.
    "prompt_rows": 512,
    "host_prompts_bytes": 1 << 20,
    "max_queued_requests": 256,
}

Noise = Callable[[Tenants, argparse.Namespace], Awaitable[object]]


async def _many_tasks(tenants: Tenants, asked: argparse.Namespace) -> None:
    tasks = [f"many{n}" for n in range(asked.tasks)]
    await _closed(tenants, "tasks", [body for task in tasks for body in bodies(task, [2], 8)], 100, asked)


async def _backlog(tenants: Tenants, asked: argparse.Namespace) -> None:
    await _closed(tenants, "backlog", bodies("own", [250], 250), 400, asked)  # 100,000 tokens


async def _cold(tenants: Tenants, asked: argparse.Namespace) -> None:
    tasks = [f"cold{n}" for n in range(min(COLD_TASKS, asked.tasks))]
    await _closed(tenants, "cold", [body for task in tasks for body in bodies(task, [2], 8)], 100, asked)


async def _full(tenants: Tenants, asked: argparse.Namespace) -> None:
    await _closed(tenants, "full", bodies("own", [8], NEW_TOKENS), 400, asked)


async def _unread(tenants: Tenants, asked: argparse.Namespace) -> None:
    """Streams whose clients read nothing, 200 at a time; each is left after a second."""
    request = tenants.payload("unread", bodies("own", [NEW_TOKENS], NEW_TOKENS, stream=True)[0])
    until = time.monotonic() + asked.seconds

    async def one() -> None:
        while time.monotonic() < until:
            reader, writer = await asyncio.open_connection(tenants.host, tenants.port, limit=1)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request)
            await asyncio.sleep(1.0)
            writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(200)))


async def _train(tenants: Tenants, asked: argparse.Namespace) -> None:
    """Its job runs already."""


async def _limited(tenants: Tenants, asked: argparse.Namespace) -> None:
    """1,000 requests a second, whatever the answers say; all but the first are over the limit."""
    wanted = [tenants.payload("limit", body) for body in bodies("own", [2], 8)]
    sender = tenants.sender(wanted, 99)
    try:
        await sender.open_loop([(_LIMITED_RATE, asked.seconds)], drain=60.0)
    finally:
        sender.close()


NEIGHBOURS: dict[str, Noise] = {
    "tasks": _many_tasks,
    "backlog": _backlog,
    "cold": _cold,
    "unread": _unread,
    "full": _full,
    "limit": _limited,
    "train": _train,
}


async def _closed(
    tenants: Tenants, name: str, wanted: list[dict[str, Any]], waiting: int, asked: argparse.Namespace
) -> None:
    sender = tenants.sender([tenants.payload(name, body) for body in wanted], 99)
    try:
        shots = await sender.closed_loop(waiting, asked.seconds)
    finally:
        sender.close()
    if not any(shot.status == 200 for shot in shots):
        raise RuntimeError(f"{name} got no answer: {Counter(shot.status for shot in shots)}")


async def _quiet(
    tenants: Tenants, key: str, noise: Noise | None, asked: argparse.Namespace
) -> dict[str, float]:
    sender = tenants.sender([tenants.payload(key, body) for body in bodies("own", [NEW_TOKENS], NEW_TOKENS)])
    beside = asyncio.ensure_future(noise(tenants, asked)) if noise is not None else None
    shots: list[Shot] = await sender.regular(EVERY_SECONDS, asked.seconds)
    if beside is not None:
        await beside
    sender.close()
    return latency_ms([shot for shot in shots if shot.due >= min(1.0, asked.seconds / 4)])


def _serve(name: Path, asked: argparse.Namespace, cores: list[int], **more: Any) -> Tenants:
    os.sched_setaffinity(0, {cores[0]})  # the server is born with it
    tenants = Tenants(name, asked.model, asked.cache, SETTINGS | more)
    os.sched_setaffinity(0, {cores[-1]})
    return tenants


def _settle(tenants: Tenants) -> None:
    """Wait until the last run's requests are gone."""
    while tenants.metric("chorus_permits"):
        time.sleep(0.2)


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every neighbour: alone, beside, control."""
    cores, told = sorted(os.sched_getaffinity(0)), {}
    chosen = [name for name in NEIGHBOURS if name in asked.only]
    tenants = _serve(folder / "first", asked, cores)
    try:
        for name in ("quiet", *chosen):
            tenants.add(name)
        if "tasks" in chosen:
            asyncio.run(_upload(tenants, "tasks", "many", asked.tasks, 1))
        if "cold" in chosen:
            asyncio.run(_upload(tenants, "cold", "cold", min(COLD_TASKS, asked.tasks), PROMPT_ROWS))
        asyncio.run(_quiet(tenants, "quiet", None, asked))  # prompts to the device
        for name in chosen:
            runs = {"alone": asyncio.run(_quiet(tenants, "quiet", None, asked))}
            if name == "limit":
                tenants.limit(name, _LIMIT)
                time.sleep(1.5)  # every process goes by it
            if name == "train":
                _start_job(tenants)
            runs["beside"] = asyncio.run(_quiet(tenants, "quiet", NEIGHBOURS[name], asked))
            if name != "train":
                _settle(tenants)
                if name == "limit":
                    tenants.limit(name, {})
                    time.sleep(1.5)
                runs["control"] = asyncio.run(_quiet(tenants, name, NEIGHBOURS[name], asked))
                _settle(tenants)
            told[name] = runs
            sys.stderr.write(f"{name}: {json.dumps(runs)}\n")
    finally:
        tenants.close()
    if "train" in chosen:
        tenants = _serve(folder / "second", asked, cores, tuning_share=0.9)
        try:
            for name in ("quiet", "train"):
                tenants.add(name)
            asyncio.run(_quiet(tenants, "quiet", None, asked))
            _start_job(tenants)
            told["train"]["control"] = asyncio.run(_quiet(tenants, "quiet", _train, asked))
            sys.stderr.write(f"train: {json.dumps(told['train'])}\n")
        finally:
            tenants.close()
    return told


def _start_job(tenants: Tenants) -> None:
    """A job of the tenant `train` that does not end; returns once it makes steps."""
    rows = [{"sentence": f"a {word} film, number {n}", "label": word} for n in range(200) for word in "ab"]
    recipe = {
        "prompt_length": PROMPT_ROWS, "batch_size": 32, "max_input_tokens": 64, "max_target_tokens": 8,
        "steps": 1_000_000, "evaluate_every_steps": 1_000_000, "checkpoint_every_steps": 1000,
    }  # fmt: skip
    with tenants.client("train") as client:
        made = client.post(
            "/v1/files",
            params={"name": "train.jsonl"},
            content="\n".join(map(json.dumps, rows)).encode(),
            headers={"Content-Type": "application/octet-stream"},
        ).raise_for_status()
        job = {
            "task": "tuned", "data": {"train": {"file": made.json()["id"]}, "validation_rows": 40},
            "template": "{sentence}", "target": "label", "labels": ["a", "b"], "metrics": ["accuracy"],
            "recipe": recipe, "seed": 0,
        }  # fmt: skip
        answer = client.post("/v1/tuning/jobs", json=job)
        if answer.status_code != 201:
            raise RuntimeError(f"the job was answered with {answer.status_code}: {answer.text}")
        until = time.monotonic() + 300
        while not tenants.metric("chorus_tuning_steps_total"):
            if time.monotonic() > until:
                found = client.get(f"/v1/tuning/jobs/{answer.json()['id']}").text
                raise RuntimeError(f"the job made no step within 300 s: {found}")
            time.sleep(0.2)


async def _upload(tenants: Tenants, name: str, prefix: str, count: int, rows: int) -> None:
    width = tenants.width
    left = iter(range(count))
    headers = {"Authorization": f"Bearer {tenants.keys[name]}", "Content-Type": "application/octet-stream"}

    async def work(client: httpx2.AsyncClient) -> None:
        for n in left:
            values = np.random.default_rng(n).normal(0, 5, (rows, width)).astype("<f4")
            answer = await client.post(f"/v1/tasks/{prefix}{n}/versions", content=npy(values))
            if answer.status_code != 201:
                raise RuntimeError(f"an upload was answered with {answer.status_code}: {answer.text}")

    async with httpx2.AsyncClient(base_url=tenants.server.url, headers=headers, timeout=300.0) as client:
        await asyncio.gather(*(work(client) for _ in range(8)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("embedded"))
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run")
    parser.add_argument("--tasks", type=int, default=10_000, help="of the tenant with many")
    parser.add_argument("--only", nargs="+", choices=NEIGHBOURS, default=list(NEIGHBOURS))
    parser.add_argument("--quick", action="store_true", help="a smoke check: keep no result")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / ".chorus" / "benchmark_cache", help="compile cache"
    )
    arguments = parser.parse_args()
    every, now = machine(), datetime.now(UTC)
    with tempfile.TemporaryDirectory() as name:
        told = measure(arguments, Path(name))
    content = {
        "what": "neighbours",
        "date": f"{now:%Y-%m-%d}",
        "machine": every,
        "versions": versions(Path(sys.executable)),
        "model": arguments.model.name,
        "seconds": arguments.seconds,
        "tasks": arguments.tasks,
        "settings": SETTINGS,
        "quiet_ms": told,
    }
    # JSON has no infinity, which stands where nothing was answered.
    text = json.dumps(content, indent=1).replace("Infinity", "null") + "\n"
    sys.stdout.write(text)
    if not arguments.quick:
        (ROOT / f"benchmarks/results/{now:%Y-%m-%d}-{every['name']}-neighbours.json").write_text(text)


if __name__ == "__main__":
    main()
