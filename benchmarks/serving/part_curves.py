"""Figure 8: throughput and latency against offered load, prompt length, requests in flight and input length.

Offered load goes over HTTP with Poisson arrivals; the others are closed loops on the engine called directly.
Against the number of tasks: the part `tasks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench import Bench
from charts import Chart
from direct import Running
from figures import Figure, Part, percentile
from load import offer, saturate
from workload import Request

_IN_FLIGHT = 32


def measure(bench: Bench) -> Part:
    """Every curve; one picture for throughput and one for latency each."""
    sizes, direct = bench.sizes, bench.direct
    usual = bench.requests(1, sizes.points)
    lengths, rows = {}, {}
    for length in sizes.prompt_lengths:
        with direct.engine(direct.made(length)) as running:
            room = sizes.longest - length
            rows[length] = _point(running, [_cut(request, room) for request in usual], _IN_FLIGHT)
    with direct.engine(direct.made(sizes.prompt_length)) as running:
        flight = {
            many: _point(running, usual[: max(8, min(sizes.points, 4 * many))], many)
            for many in sizes.concurrency
        }
        for length in sizes.text_lengths:
            lengths[length] = _point(running, _of_length(bench, length), _IN_FLIGHT)
    offered, full = _offered(bench)
    curves = {
        "prompt_length": ("prompt length, rows", rows, False),
        "in_flight": ("requests in flight", flight, True),
        "text_length": ("text length, tokens, beside the prompt", lengths, False),
        "offered": ("offered load, requests a second", offered, False),
    }
    charts: dict[str, Chart] = {}
    for name, (label, points, log_x) in curves.items():
        mark = (full, "saturation") if name == "offered" else None
        charts |= _charts(name, label, points, log_x, mark)
    return Part(
        [
            Figure("saturation over HTTP, labels load", full, "requests/s"),
            *(Figure(f"prompt length {n}", p["rate"], "requests/s") for n, p in rows.items()),
        ],
        {name: {str(x): point for x, point in points.items()} for name, (_, points, _) in curves.items()},
        charts,
    )


def _point(running: Running, requests: list[Request], in_flight: int) -> dict[str, float]:
    running.burst(requests[: min(len(requests), 16)])
    seconds, each = running.closed(requests, in_flight)
    return {
        "rate": len(requests) / seconds,
        "p50_ms": 1e3 * percentile(each, 0.5),
        "p99_ms": 1e3 * percentile(each, 0.99),
    }


def _cut(request: Request, room: int) -> Request:
    ids = request.ids if len(request.ids) <= room else [*request.ids[: room - 1], request.ids[-1]]
    return Request(request.task, ids, request.new_tokens)


def _of_length(bench: Bench, length: int) -> list[Request]:
    """Requests whose texts have exactly that many ids."""
    ids = [piece for text in bench.texts[:200] for piece in bench.ids(text)[:-1]]
    step = length - 1
    return [
        Request(0, [*ids[n * step % (len(ids) - step) :][:step], bench.vocabulary.eos_id], 4)
        for n in range(bench.sizes.points)
    ]


def _offered(bench: Bench) -> tuple[dict[float, dict[str, Any]], float]:
    full = saturate(bench, bench.served, bench.sizes.seconds_a_load).rate
    points = {}
    for share in bench.sizes.offered:
        felt = offer(bench, bench.served, share * full, bench.sizes.seconds_a_load)
        points[round(share * full, 1)] = {
            "rate": felt.rate,
            "p50_ms": 1e3 * percentile(felt.seconds, 0.5),
            "p99_ms": 1e3 * percentile(felt.seconds, 0.99),
            "share_of_saturation": share,
            **felt.as_json(),
        }
    return points, full


def _charts(
    name: str,
    label: str,
    points: dict[Any, dict[str, Any]],
    log_x: bool,
    mark: tuple[float, str] | None,
) -> dict[str, Chart]:
    def series(which: str) -> Iterable[tuple[float, float]]:
        return sorted((float(x), float(point[which])) for x, point in points.items())

    return {
        f"{name}-throughput": Chart(
            f"Throughput by {label}",
            label,
            "requests a second",
            {"answered": list(series("rate"))},
            log_x,
            mark,
        ),
        f"{name}-latency": Chart(
            f"Latency by {label}",
            label,
            "milliseconds",
            {"p50": list(series("p50_ms")), "p99": list(series("p99_ms"))},
            log_x,
            mark,
        ),
    }
