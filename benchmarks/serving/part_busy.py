"""Figure 4, first part: the share of the time in which the device has work, with the queue always full.

Twice over: from the engine's own intervals (a step is under way from its dispatch until its result was read),
and as the seconds of the same step plans run bare, with no scheduler between them, over the engine's.
"""

from __future__ import annotations

import statistics

from bench import Bench
from direct import replay
from figures import Figure, Part


def measure(bench: Bench) -> Part:
    """The labels load in turns with a replay of the plans that it made."""
    sizes = bench.sizes
    requests = bench.requests(sizes.served_tasks, sizes.requests)
    turns = []
    with bench.direct.engine(bench.direct.made(sizes.prompt_length)) as running:
        running.burst(requests)  # from here on every prompt is on the device
        for _ in range(2 * sizes.rounds):
            running.plans.clear()
            running.view.intervals.clear()
            seconds = running.burst(requests)
            plans = list(running.plans)
            busy = running.view.busy_seconds()
            bare = replay(running.view.executor, plans)
            turns.append({"seconds": seconds, "busy": busy, "bare": bare, "steps": len(plans)})
    busy_share = statistics.median(turn["busy"] / turn["seconds"] for turn in turns)
    bare_share = statistics.median(turn["bare"] / turn["seconds"] for turn in turns)
    return Part(
        [
            Figure("share of the time a step is under way, at saturation", busy_share, "of 1", 0.95),
            Figure("bare step plans over the engine, the same plans", bare_share, "of 1", 0.95),
        ],
        {"turns": turns, "requests": len(requests)},
    )
