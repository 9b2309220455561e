"""Figure 4, the rest: HTTP against the engine called directly, and what one idle request costs.

The server is a process of its own and the client another, on the same cores: what the client needs counts
against HTTP. The same texts, tasks and tokens each time.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench import Bench
from direct import Running, replay
from figures import Figure, Part, ceiling, spread_ms

_ITEMS = 16
_CONNECTIONS = 64


def measure(bench: Bench) -> Part:
    """Rounds of direct, many items a request and single requests; then one request at a time. Single requests
    stand beside a direct caller who has as many in flight."""
    server, sizes = bench.served, bench.sizes
    items = bench.bodies(sizes.requests)
    requests = bench.as_requests(items)
    batches = [{"requests": items[n : n + _ITEMS]} for n in range(0, len(items), _ITEMS)]
    in_flight = min(_CONNECTIONS, len(items))
    kinds = ("direct", "batches", "one_request", "direct_in_flight", "singles")
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with bench.direct.engine(bench.direct.made(sizes.prompt_length)) as running:
        for number in range(sizes.rounds + 1):
            took = {
                "direct": running.burst(requests),
                "batches": server.send(batches, len(batches))[0],
                "one_request": server.send([{"requests": items}], 1)[0],
                "direct_in_flight": running.closed(requests, in_flight)[0],
                "singles": server.send(items, in_flight)[0],
            }
            if number:
                for name, value in took.items():
                    seconds[name].append(value)
        idle = _idle(bench, running)

    def ratio(name: str, direct: str = "direct") -> float:
        return statistics.median(a / b for a, b in zip(seconds[direct], seconds[name], strict=True))

    return Part(
        [
            Figure(f"HTTP over direct, {_ITEMS} inputs a request", ratio("batches"), goal=0.95),
            Figure(f"HTTP over direct, one request of {len(items)} inputs", ratio("one_request"), goal=0.95),
            Figure(
                f"HTTP over direct, one input a request, {in_flight} in flight",
                ratio("singles", "direct_in_flight"),
                goal=0.95,
            ),
            ceiling("one idle request beyond 1.1 x its compiled calls", idle["beyond_ms"], 3.0, "ms"),
            ceiling("programs compiled because of requests", server.compiles_by_requests(), 0, "programs"),
        ],
        {"seconds": seconds, "requests": len(items), "idle": idle},
    )


def _idle(bench: Bench, running: Running) -> dict[str, Any]:
    """One request at a time over HTTP, in turns with the bare step plans that it needs."""
    item = bench.bodies(1)[0]
    requests = bench.as_requests([item])
    running.burst(requests)
    running.plans.clear()
    running.burst(requests)
    plans, executor = list(running.plans), running.view.executor
    http, bare = [], []
    for _ in range(bench.sizes.idle_requests + 3):
        http.append(bench.served.generate(item))
        bare.append(replay(executor, plans))
    http, bare = http[3:], bare[3:]
    beyond = statistics.median(http) - 1.1 * statistics.median(bare)
    return {
        "http_ms": spread_ms(http),
        "compiled_calls_ms": spread_ms(bare),
        "plans": len(plans),
        "beyond_ms": 1e3 * beyond,
    }
