"""Figure 3: continuous batching of texts of very different lengths, against the bound that the lengths set.

A static batch decodes until its longest row ends, so continuous batching can gain at most
(prefill + sum of batch maxima) / (prefill + sum of lengths), in the seconds of the same programs. The static
baseline here is those programs driven by hand: requests sorted by input length, blocks filled, decoded until
the last row ends.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench import Bench
from direct import Running
from figures import Figure, Part
from static import StaticBatches
from workload import Request

LOADS = {"uniform": "uniform 8 to 64", "long_tail": "long tail, median 12, p99 128"}


def measure(bench: Bench) -> Part:
    """Both loads, ours and static in turns."""
    sizes = bench.sizes
    figures: list[Figure] = []
    detail: dict[str, Any] = {}
    handle = bench.direct.made(sizes.prompt_length)
    tasks = sizes.served_tasks
    static = StaticBatches(bench.direct, sizes.prompt_length, tasks)
    with bench.direct.engine(handle) as running:
        for name, words in LOADS.items():
            requests = bench.requests(tasks, sizes.text_requests, new_tokens=name)
            rounds = _turns(running, static, requests, sizes.text_rounds)
            gain = statistics.median(turn["static"] / turn["ours"] for turn in rounds)
            bound = statistics.median(turn["bound"] for turn in rounds)
            figures += [
                Figure(f"{words}: gain over static batches, share of the bound", gain / bound, goal=0.85),
                Figure(f"{words}: gain over static batches", gain),
                Figure(f"{words}: the bound", bound),
            ]
            detail[name] = {"rounds": rounds, "requests": len(requests)}
    return Part(figures, detail)


def _turns(
    running: Running, static: StaticBatches, requests: list[Request], rounds: int
) -> list[dict[str, float]]:
    short = requests[: len(requests) // 4]
    running.burst(short)
    static.run(short)
    turns = []
    for _ in range(rounds):
        ours = running.burst(requests)
        turn = static.run(requests)
        turns.append({"ours": ours, "static": turn.seconds, "bound": turn.bound, **turn.as_json()})
    return turns
