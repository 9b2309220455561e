"""Figure 5: from upload to answer, a cold prompt beside a warm one, and no compile whatever arrives."""

from __future__ import annotations

import statistics
from typing import Any

from bench import Bench
from figures import Part, ceiling, percentile, spread_ms
from served import Served


def measure(bench: Bench) -> Part:
    """Uploads each followed by a request; prompts used for the first time; a mixture of every request."""
    fresh, warm_after = _uploads(bench)
    cold, warm = _cold(bench)
    _everything(bench, bench.served)
    beyond = [1e3 * (first - again) for first, again in zip(fresh, warm_after, strict=True)]
    added = 1e3 * (percentile(cold, 0.99) - percentile(warm, 0.99))
    paired = [1e3 * (a - b) for a, b in zip(cold, warm, strict=True)]
    return Part(
        [
            ceiling(
                "upload answered to first answer, beyond the inference: p50",
                statistics.median(beyond),
                50.0,
                "ms",
            ),
            ceiling("a cold prompt adds, p99 beside p99", added, 10.0, "ms"),
            ceiling("a cold prompt adds, p50 of pairs", statistics.median(paired), 10.0, "ms"),
            ceiling(
                "programs compiled because of requests", bench.served.compiles_by_requests(), 0, "programs"
            ),
        ],
        {
            "first_after_upload_ms": spread_ms(fresh),
            "same_again_ms": spread_ms(warm_after),
            "cold_ms": spread_ms(cold),
            "warm_ms": spread_ms(warm),
            "cold_less_warm_ms": {"p50": statistics.median(paired), "p99": percentile(paired, 0.99)},
        },
    )


def _item(bench: Bench, task: str) -> dict[str, Any]:
    return bench.bodies(1)[0] | {"task": task}


def _uploads(bench: Bench) -> tuple[list[float], list[float]]:
    """Seconds of the first request after each upload, and of the same one again."""
    fresh, again = [], []
    for number in range(bench.sizes.uploads):
        item = _item(bench, f"fresh{number}")
        bench.served.upload(item["task"], bench.prompt(100_000 + number))
        fresh.append(bench.served.generate(item))
        again.append(bench.served.generate(item))
    return fresh, again


def _cold(bench: Bench) -> tuple[list[float], list[float]]:
    """Prompts that are in the store only, then on the device."""
    tasks = [f"cold{number}" for number in range(bench.sizes.cold)]
    for number, task in enumerate(tasks):
        bench.served.upload(task, bench.prompt(200_000 + number))
    bench.served.generate(_item(bench, "task0"))
    cold, warm = [], []
    for task in tasks:
        cold.append(bench.served.generate(_item(bench, task)))
        warm.append(bench.served.generate(_item(bench, task)))
    return cold, warm


def _everything(bench: Bench, server: Served) -> None:
    """Every kind of request, at every input length."""
    long = " ".join(bench.texts[:40])
    for task in ("task0", None):
        for size in (0, 1, 40, 200, 500, 900, 4000):
            base = {"task": task, "input": long[:size], "truncate": True, "max_new_tokens": 3}
            for settings in (
                {},
                {"num_beams": 2, "n": 2},
                {"n": 3, "temperature": 0.8, "top_k": 5, "top_p": 0.9, "seed": 1, "logprobs": True},
                {"stream": True},
            ):
                answer = server.http.post("/v1/generate", json=base | settings)
                assert answer.status_code == 200, answer.text
    for labels in (["yes", "no"], [f"answer {n}" for n in range(12)]):
        server.post("/v1/classify", {"task": "task0", "inputs": ["good", "bad"], "labels": labels})
    server.post("/v1/ensemble", {"tasks": ["task0", "task1", "task2"], "input": "good"})
