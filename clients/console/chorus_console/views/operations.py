"""What this process does now, and has done since it started, by its own metrics."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence

from starlette.responses import Response

from chorus_console.door import Visit
from chorus_console.same import same

_LINE = re.compile(r"(chorus_[a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

_SHOWN = 8

Sample = tuple[dict[str, str], float]


class Samples:
    """The metrics of one moment, by name."""

    def __init__(self, text: str) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for line in text.splitlines():
            if found := _LINE.fullmatch(line):
                labels = {name: value.replace('\\"', '"') for name, value in _LABEL.findall(found[2] or "")}
                self._by_name.setdefault(found[1], []).append((labels, float(found[3])))

    def of(self, name: str) -> Sequence[Sample]:
        """All samples of a series."""
        return self._by_name.get(name, [])

    def total(self, name: str, **labels: str) -> float:
        """The sum of those that have these labels."""
        return sum(value for has, value in self.of(name) if labels.items() <= has.items())

    def most(self, name: str, label: str) -> list[tuple[str, float]]:
        """The largest sums by one label."""
        sums: dict[str, float] = {}
        for has, value in self.of(name):
            sums[has.get(label, "")] = sums.get(has.get(label, ""), 0) + value
        return sorted(sums.items(), key=lambda each: -each[1])[:_SHOWN]

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """The upper end of the bucket in which a quantile lies; None if nothing was counted."""
        buckets: dict[float, float] = {}
        for has, value in self.of(f"{name}_bucket"):
            if labels.items() <= has.items():
                end = float(has["le"].replace("+Inf", "inf"))
                buckets[end] = buckets.get(end, 0) + value
        count = buckets.get(math.inf, 0)
        if not count:
            return None
        return next((end for end, below in sorted(buckets.items()) if below >= share * count), None)


async def show(visit: Visit) -> Response:
    """The page; a part of it is asked for again every few seconds."""
    client = visit.client
    text, ready, model = await asyncio.gather(client.metrics(), client.ready(), client.model())
    now = await visit.work(Samples, text)
    real, padded = now.total("chorus_real_tokens_total"), now.total("chorus_padded_tokens_total")
    info = [has for has, _ in now.of("chorus_lora_requests_info")]
    values = {
        "ready": ready, "model": model, "now": now,
        "padding": 1 - real / padded if padded else None,
        "resident": sorted({name for has in info for name in _names(has, "running_lora_adapters")}),
        "waiting": sorted({name for has in info for name in _names(has, "waiting_lora_adapters")}),
        "kinds": sorted({has["kind"] for has, _ in now.of("chorus_request_seconds_count")}),
        "tenants": now.most("chorus_tenant_requests_total", "tenant"),
        "refused": now.most("chorus_requests_refused_total", "code"),
        "compiles": now.most("chorus_compiles_total", "cause"),
        "same": same("GET", "/metrics", "text = client.metrics()"),
    }  # fmt: skip
    return await visit.show("operations_now.html" if visit.is_fragment else "operations.html", **values)


def _names(labels: dict[str, str], name: str) -> list[str]:
    return [each.strip() for each in labels.get(name, "").split(",") if each.strip()]
