"""Loads over HTTP with the client's own generator, from this process against the server's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from bench import Bench
from figures import spread_ms
from served import Served

from chorus import AsyncClient
from chorus.load import LoadSpec, report_of, run_load
from chorus.load.connections import SpreadTransport
from chorus.load.outcomes import Recorder

_CONNECTIONS = 256
_SATURATING = 48


@dataclass
class Felt:
    """What clients felt.

    Attributes:
        rate: answers a second.
        seconds: of each answer, from when it was due.
        failed: by code.
    """

    rate: float
    seconds: list[float]
    failed: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "requests_per_second": round(self.rate, 3),
            "answers": len(self.seconds),
            "latency_ms": spread_ms(self.seconds),
            "failed": self.failed,
        }


def saturate(bench: Bench, server: Served, seconds: float) -> Felt:
    """A closed loop that keeps the server full."""
    return _drive(bench, server, arrivals="closed", concurrency=_SATURATING, duration_seconds=seconds)


def offer(bench: Bench, server: Served, rate: float, seconds: float, seed: int = 0) -> Felt:
    """Poisson arrivals at a rate; the same moments, tasks and texts for the same seed."""
    return _drive(
        bench,
        server,
        arrivals="open",
        rate_per_second=rate,
        concurrency=_CONNECTIONS,
        duration_seconds=seconds,
        seed=seed,
    )


def _drive(bench: Bench, server: Served, **settings: Any) -> Felt:
    spec = LoadSpec(
        tasks=tuple(f"task{n}" for n in range(bench.sizes.served_tasks)),
        inputs=tuple(bench.texts[:300]),
        settings={"max_new_tokens": 4, "min_new_tokens": 4, "truncate": True},
        **settings,
    )
    recorder = Recorder()
    client = AsyncClient(
        server.url,
        max_connections=spec.concurrency,
        retries=0,
        transport=SpreadTransport(spec.concurrency),
    )

    async def run() -> None:
        async with client:
            await run_load(client, spec, recorder)

    asyncio.run(run())
    report = report_of(spec, recorder, client.statistics)
    answered = [outcome.seconds for outcome in recorder.outcomes if outcome.code is None]
    if not answered:
        raise RuntimeError(f"no request of the load was answered: {dict(recorder.errors)}")
    return Felt(report.throughput_per_second, answered, dict(report.errors))
