"""Figure 6: an ensemble of five beside five unrelated requests in one batch, and five one after another.

Over HTTP on an idle server. Members and unrelated tasks have no labels, so an ensemble generates texts as the
other requests do; the answers' tokens are counted to show that the work is the same.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from bench import Bench
from figures import Part, ceiling, spread_ms

_MEMBERS = 5


def measure(bench: Bench) -> Part:
    """The three in turns."""
    text = bench.texts[0]
    common: dict[str, Any] = {"input": text, "max_new_tokens": 4, "truncate": True}
    ensemble = {"tasks": [f"task{n}" for n in range(_MEMBERS)], **common}
    others = bench.sizes.served_tasks - _MEMBERS if bench.sizes.served_tasks >= 2 * _MEMBERS else 0
    unrelated = [{"task": f"task{others + n}", **common} for n in range(_MEMBERS)]
    seconds: dict[str, list[float]] = {"ensemble": [], "batch": [], "one_after_another": []}
    for number in range(bench.sizes.ensembles + 1):
        took = {
            "ensemble": _timed(bench, [("/v1/ensemble", ensemble)]),
            "batch": _timed(bench, [("/v1/generate", {"requests": unrelated})]),
            "one_after_another": _timed(bench, [("/v1/generate", item) for item in unrelated]),
        }
        if number:
            for name, value in took.items():
                seconds[name].append(value)
    medians = {name: statistics.median(took) for name, took in seconds.items()}
    answers = bench.served.post("/v1/generate", {"requests": unrelated})["results"]
    members = [
        bench.served.post("/v1/generate", {"task": task, **common})["results"][0]
        for task in ensemble["tasks"]
    ]
    return Part(
        [
            ceiling(
                "an ensemble of five over five unrelated in one batch",
                medians["ensemble"] / medians["batch"],
                1.15,
            ),
            ceiling(
                "an ensemble of five over five one after another",
                medians["ensemble"] / medians["one_after_another"],
                0.6,
            ),
        ],
        {
            "milliseconds": {name: spread_ms(took) for name, took in seconds.items()},
            "tokens_unrelated": sum(answer["usage"]["output_tokens"] for answer in answers),
            "tokens_members": sum(member["usage"]["output_tokens"] for member in members),
        },
    )


def _timed(bench: Bench, calls: list[tuple[str, dict[str, Any]]]) -> float:
    started = time.perf_counter()
    for path, body in calls:
        bench.served.post(path, body)
    return time.perf_counter() - started
