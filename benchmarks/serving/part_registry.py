"""Figure 2, second half: 10,000 prompts in a real store, 1,000 of them in use, room for 256 on the device.

Each request resolves its reference in the store's database and gets its prompt through the bounded tiers;
beside it, the same requests where every prompt in use is on the device.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from bench import Bench
from contenders import ROOT
from direct import Running
from figures import Figure, Part
from part_tasks import make_resident

from chorus_server.api.inference.prompt_source import StorePrompts
from chorus_server.engine.requests import PromptHandle
from prompts_store.digests import prompt_digest
from prompts_store.records import PromptManifest
from prompts_store.store import PromptStore

TENANT = "bench"
_WRITERS = 4


def measure(bench: Bench) -> Part:
    """Zipf and uniform choice of the tasks, both engines in turns."""
    sizes = bench.sizes
    prompt_bytes = 4 * sizes.prompt_length * bench.width
    seconds: dict[str, dict[str, list[float]]] = {}
    seen: dict[str, Any] = {}
    with _store(bench) as store, ExitStack() as engines:
        source = StorePrompts(store)
        resident = engines.enter_context(bench.direct.engine(_handles(store), source=source))
        make_resident(resident, sizes.in_use)
        for skew in ("zipf", "uniform"):
            with bench.direct.engine(
                _handles(store),
                source=source,
                rows=sizes.budget_prompts * sizes.prompt_length,
                host_bytes=sizes.host_prompts * prompt_bytes,
            ) as bounded:
                _fill(bench, bounded, skew)
                seconds[skew] = _turns(bench, resident, bounded, skew)
                stats = bounded.engine.stats()
                seen[skew] = {"rows_resident": stats.rows_resident, "host_prompts": stats.host_prompts}
    figures = []
    for skew, took in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(took["resident"], took["bounded"], strict=True))
        figures.append(
            Figure(
                f"{sizes.in_use:,} of {sizes.registered:,} prompts, room for {sizes.budget_prompts}, {skew}: "
                "over all resident",
                ratio,
                goal=0.9,
            )
        )
    return Part(figures, {"seconds": seconds, "requests": sizes.requests, "at_the_end": seen})


def _turns(bench: Bench, resident: Running, bounded: Running, skew: str) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"resident": [], "bounded": []}
    for number in range(bench.sizes.rounds + 1):
        requests = bench.requests(bench.sizes.in_use, bench.sizes.requests, skew=skew, seed=number)
        # Each goes first in turn: whoever does finds the database's pages cold.
        order = {"resident": resident, "bounded": bounded}
        names = sorted(order, reverse=number % 2 == 0)
        took = {name: order[name].burst(requests) for name in names}
        if number:
            for name, value in took.items():
                seconds[name].append(value)
    return seconds


def _fill(bench: Bench, bounded: Running, skew: str) -> None:
    """Fill the tiers as after a long time, with other draws than are measured."""
    draws = bench.requests(bench.sizes.in_use, 3 * bench.sizes.host_prompts // 2, skew=skew, seed=1000)
    bounded.burst([type(draw)(draw.task, [1], 1) for draw in draws])


def _handles(store: PromptStore) -> Any:
    """Resolves in the database at every request, as the API does where nothing is cached."""

    def handle(task: int) -> PromptHandle:
        manifest = store.resolve(f"{TENANT}/task{task}", tenant=TENANT).manifest
        return PromptHandle(manifest.digest, manifest.length)

    return handle


@contextmanager
def _store(bench: Bench) -> Iterator[PromptStore]:
    with closing(PromptStore.open(store_folder(bench))) as store:
        yield store


def store_folder(bench: Bench) -> Path:
    """The folder of a store with every prompt registered; kept, because making it takes minutes."""
    sizes = bench.sizes
    name = f"{sizes.registered}x{sizes.prompt_length}x{bench.width}"
    folder = (bench.scratch if sizes.model == "tiny" else ROOT / ".chorus") / f"benchmark_store_{name}"
    with closing(PromptStore.open(folder)) as store:
        page = store.list_tasks(TENANT, limit=1, prefix=f"task{sizes.registered - 1}")
        if not page.items:
            sys.stderr.write(f"  registering {sizes.registered:,} prompts in {folder}\n")
            with ThreadPoolExecutor(_WRITERS) as pool:
                # The last one is published last: it says that the others are there.
                list(pool.map(lambda n: _publish(bench, store, n), range(sizes.registered - 1)))
            _publish(bench, store, sizes.registered - 1)
    return folder


def _publish(bench: Bench, store: PromptStore, number: int) -> None:
    values = bench.prompt(number)
    manifest = PromptManifest(prompt_digest(values), *values.shape)
    store.publish(TENANT, f"task{number}", values, manifest)
