"""Figure 2, first half: a thousand tasks against one, every prompt on the device, the same texts."""

from __future__ import annotations

import statistics
import sys

from bench import Bench
from charts import Chart
from direct import Running
from figures import Figure, Part
from workload import Request


def measure(bench: Bench) -> Part:
    """The burst of requests from 1, 32, 64 and 1,000 tasks, interleaved."""
    sizes = bench.sizes
    loads = {tasks: bench.requests(tasks, sizes.requests) for tasks in sizes.tasks}
    seconds: dict[int, list[float]] = {tasks: [] for tasks in sizes.tasks}
    with bench.direct.engine(bench.direct.made(sizes.prompt_length)) as running:
        make_resident(running, max(sizes.tasks))
        for number in range(sizes.rounds + 1):
            for tasks, requests in loads.items():
                took = running.burst(requests)
                if number:
                    seconds[tasks].append(took)
        resident = running.engine.stats().rows_resident
    one, most = seconds[1], seconds[max(sizes.tasks)]
    ratio = statistics.median(a / b for a, b in zip(one, most, strict=True))
    rates = {tasks: sizes.requests / statistics.median(took) for tasks, took in seconds.items()}
    return Part(
        [
            Figure(f"throughput of {max(sizes.tasks):,} tasks over 1 task", ratio, goal=0.97),
            *(Figure(f"{tasks:,} tasks", rate, "requests/s") for tasks, rate in rates.items()),
        ],
        {"rows_resident": resident, "seconds": seconds, "requests": sizes.requests},
        {
            "tasks": Chart(
                "Throughput by number of tasks",
                "tasks",
                "requests a second",
                {"labels load": sorted(rates.items())},
                log_x=True,
            )
        },
    )


def make_resident(running: Running, tasks: int) -> None:
    """Bring the prompts of that many tasks onto the device, with the cheapest request there is."""
    sys.stderr.write(f"  loading {tasks:,} prompts onto the device\n")
    running.burst([Request(task, [1], 1) for task in range(tasks)])
