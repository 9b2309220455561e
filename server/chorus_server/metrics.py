"""The building blocks of Prometheus series. Each package declares its own series in a `metrics.py` and counts
where something happens. Tests make their own objects.

Counting never raises: what cannot be counted is logged. Labels that a client can choose (tenant, task) are
capped: values after the first `limit` are counted together as `other`, so a client cannot grow the server's
memory.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

OTHER = "other"

# From half a millisecond (classification on an accelerator) to a minute (long generation on a CPU).
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Series:
    """One metric, as docs/metrics.md lists it.

    Attributes:
        name: as Prometheus shows it; counters end in `_total`.
        buckets: upper bounds, for a histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


class MetricsRegistry(CollectorRegistry):
    """The series of one server. It is never the process-wide registry, so two servers can run in one test.

    Attributes:
        table: every series, as it was declared.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: list[Series] = []


class Counter:
    """Counts. `inc` never raises."""

    def __init__(
        self, registry: MetricsRegistry, name: str, description: str, labels: tuple[str, ...] = ()
    ) -> None:
        self._name = name
        self._made = prometheus_client.Counter(name, description, labels, registry=registry)
        # Children by labels: looking one up in the library takes several times as long.
        self._kept: dict[tuple[str, ...], prometheus_client.Counter] = {} if labels else {(): self._made}
        registry.table.append(Series(name, "counter", description, labels))

    def inc(self, amount: float = 1, *labels: str) -> None:
        """Add `amount`; `labels` are in the order in which they were declared."""
        try:
            kept = self._kept.get(labels)
            if kept is None:
                kept = self._kept[labels] = self._made.labels(*labels)
            kept.inc(amount)
        except Exception:
            _log_loss(self._name)

    def counted(self) -> dict[tuple[str, ...], float]:
        """What was counted so far, by labels."""
        samples = (sample for family in self._made.collect() for sample in family.samples)
        return {
            tuple(sample.labels.values()): sample.value for sample in samples if sample.name == self._name
        }


class Histogram:
    """Counts by size. `observe` never raises.

    Attributes:
        bounds: upper bounds of the buckets, infinity last.
    """

    def __init__(
        self,
        registry: MetricsRegistry,
        name: str,
        description: str,
        buckets: tuple[float, ...],
        labels: tuple[str, ...] = (),
    ) -> None:
        self._name = name
        self.bounds = (*buckets, math.inf)
        self._made = prometheus_client.Histogram(
            name, description, labels, registry=registry, buckets=buckets
        )
        self._kept: dict[tuple[str, ...], prometheus_client.Histogram] = {} if labels else {(): self._made}
        registry.table.append(Series(name, "histogram", description, labels, buckets))

    def observe(self, value: float, *labels: str) -> None:
        """Add a value; `labels` are in the order in which they were declared."""
        try:
            kept = self._kept.get(labels)
            if kept is None:
                kept = self._kept[labels] = self._made.labels(*labels)
            kept.observe(value)
        except Exception:
            _log_loss(self._name)

    def counted(self) -> list[float]:
        """How many values so far were at most each of `bounds`, whatever their labels."""
        sums = dict.fromkeys(self.bounds, 0.0)
        for family in self._made.collect():
            for sample in family.samples:
                if "le" in sample.labels:
                    sums[float(sample.labels["le"])] += sample.value
        return list(sums.values())


class Gauges(Collector, Generic[S]):
    """Gauges that describe one object. They are read at each scrape, all at the same instant, so they cost
    nothing in between.

    Args:
        read: returns the object; `watch` replaces it.
        gauges: name, description and value of each.
    """

    def __init__(
        self,
        registry: MetricsRegistry,
        read: Callable[[], S],
        *gauges: tuple[str, str, Callable[[S], float]],
    ) -> None:
        self._read = read
        self._gauges = gauges
        registry.register(self)
        registry.table.extend(Series(name, "gauge", description) for name, description, _ in gauges)

    def watch(self, read: Callable[[], S]) -> None:
        """Read the object with this function from now on."""
        self._read = read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [GaugeMetricFamily(name, description) for name, description, _ in self._gauges]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        thing = self._read()
        for name, description, value in self._gauges:
            yield GaugeMetricFamily(name, description, value=value(thing))


class Gauge(Gauges[float]):
    """A single number; 0 until `watch` is called."""

    def __init__(self, registry: MetricsRegistry, name: str, description: str) -> None:
        super().__init__(registry, lambda: 0.0, (name, description, float))


class WatchedCounter(Collector):
    """A counter with two labels that other code keeps. It is shown once `watch` is called."""

    def __init__(
        self, registry: MetricsRegistry, name: str, description: str, labels: tuple[str, str]
    ) -> None:
        self._registry = registry
        self._series = Series(name, "counter", description, labels)
        self._read: Callable[[], Mapping[tuple[str, str], int]] = dict
        registry.table.append(self._series)

    def watch(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Read the counts by labels from `read` at each scrape."""
        self._read = read
        self._registry.register(self)

    def describe(self) -> Iterable[CounterMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = self._family()
        for labels, count in sorted(self._read().items()):
            family.add_metric(labels, count)
        yield family

    def _family(self) -> CounterMetricFamily:
        series = self._series
        return CounterMetricFamily(series.name, series.description, labels=series.labels)


class LabelCap:
    """The first `limit` values get series of their own; every later one is `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        with self._lock:
            if len(self._known) < self._limit:
                self._known.add(value)
                return value
        return OTHER


def _log_loss(name: str) -> None:
    logger.exception("%s could not be counted; the request is not affected", name)
