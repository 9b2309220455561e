"""Which request goes when. It is decided from the seed alone, before anything is sent."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from chorus.load.spec import LoadSpec, Mix
from chorus.routes.inference import Input


@dataclass(frozen=True, slots=True)
class Shot:
    """One request to send. `at_seconds` is counted from the start; it is 0 for closed arrivals, which go when
    there is room.
    """

    at_seconds: float
    task: str | None
    input: Input


def cumulative_weights(mix: Mix, count: int, exponent: float) -> list[float]:
    """Running sums of the tasks' popularities, most popular first."""
    weights = ((rank**-exponent if mix == "zipf" else 1.0) for rank in range(1, count + 1))
    return list(itertools.accumulate(weights))


def schedule(spec: LoadSpec) -> Iterator[Shot]:
    """The run's requests in order: at most `spec.requests`, and none after `spec.duration_seconds`.

    Open arrivals are a Poisson process: the gaps are independent and exponential with mean 1 / rate.
    """
    # Separate random streams, so that another mix does not move the arrivals.
    gaps, picks, texts = (random.Random(f"{spec.seed}/{name}") for name in ("gaps", "tasks", "inputs"))
    weights = cumulative_weights(spec.mix, len(spec.tasks), spec.zipf_exponent)
    at = 0.0
    for _ in range(spec.requests):
        if spec.arrivals == "open":
            at += gaps.expovariate(spec.rate_per_second)
            if at >= spec.duration_seconds:
                return
        task = picks.choices(spec.tasks, cum_weights=weights)[0]
        yield Shot(at, task, texts.choice(spec.inputs))
