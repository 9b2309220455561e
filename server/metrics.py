"""Every Prometheus series of the server, once: this table feeds `/metrics` and docs/metrics.md.

A leaf: it knows names, buckets and labels, not who counts. Labels that a client can choose (tenant, task)
are capped: after the first so many values the rest are counted together as `other`, so a client cannot grow
the server's memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

OTHER = "other"
COMPILES = "chorus_compiles_total"

# From half a millisecond (a classification on an accelerator) to a minute (long generation on a CPU).
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SHARE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COMPILE_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

Kind = Literal["counter", "gauge", "histogram"]
M = TypeVar("M", Counter, Histogram)


@dataclass(frozen=True, slots=True)
class Series:
    """One metric.

    Attributes:
        name: as Prometheus shows it (counters end in `_total`).
        buckets: upper bounds of a histogram.
    """

    name: str
    kind: Kind
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SERIES: tuple[Series, ...] = (
    Series(
        "chorus_http_request_seconds",
        "histogram",
        "Seconds from the first byte of a request to the last of its answer.",
        ("route", "status"),
        SECONDS,
    ),
    Series("chorus_requests_total", "counter", "Engine requests by outcome.", ("kind", "outcome")),
    Series(
        "chorus_requests_refused_total",
        "counter",
        "Engine requests turned away at submission, by code.",
        ("code",),
    ),
    Series(
        "chorus_request_seconds",
        "histogram",
        "Seconds from submission to outcome, of answered requests.",
        ("kind",),
        SECONDS,
    ),
    Series(
        "chorus_queue_seconds",
        "histogram",
        "Seconds a request waited for its encoder pass.",
        ("kind",),
        SECONDS,
    ),
    Series("chorus_prefill_seconds", "histogram", "Seconds of a request's encoder pass.", ("kind",), SECONDS),
    Series(
        "chorus_decode_seconds", "histogram", "Seconds from encoder pass to last token.", ("kind",), SECONDS
    ),
    Series(
        "chorus_first_token_seconds", "histogram", "Seconds from submission to the first token.", (), SECONDS
    ),
    Series("chorus_input_tokens_total", "counter", "Tokens read: prompts, texts and </s>."),
    Series("chorus_output_tokens_total", "counter", "Tokens written, </s> not counted."),
    Series(
        "chorus_tenant_requests_total", "counter", "Engine requests by tenant, capped.", ("tenant", "outcome")
    ),
    Series("chorus_tenant_tokens_total", "counter", "Tokens by tenant, capped.", ("tenant", "direction")),
    Series("chorus_task_requests_total", "counter", "Engine requests by task, capped.", ("task", "outcome")),
    Series("chorus_batch_rows", "histogram", "Requests in one encoder pass.", ("kind",), ROWS),
    Series("chorus_batch_tasks", "histogram", "Distinct tasks in one encoder pass.", ("kind",), ROWS),
    Series(
        "chorus_padding_share", "histogram", "Share of an encoder pass that was padding.", ("kind",), SHARE
    ),
    Series("chorus_real_tokens_total", "counter", "Tokens of encoder passes that belonged to requests."),
    Series("chorus_padded_tokens_total", "counter", "Tokens of encoder passes, padding included."),
    Series("chorus_prefill_step_seconds", "histogram", "Seconds of one encoder pass.", ("kind",), SECONDS),
    Series("chorus_decode_step_seconds", "histogram", "Seconds of one decode dispatch.", (), SECONDS),
    Series("chorus_decode_slots", "histogram", "Active slots of one decode dispatch.", (), ROWS),
    Series("chorus_prompt_hits_total", "counter", "Prompts of a batch that were in the device table."),
    Series("chorus_prompt_loads_total", "counter", "Prompts written to the device table."),
    Series("chorus_prompt_evictions_total", "counter", "Prompts dropped from the device table."),
    Series("chorus_prompt_fetches_total", "counter", "Prompts fetched from the store.", ("ok",)),
    Series("chorus_prompt_fetch_seconds", "histogram", "Seconds of one fetch from the store.", (), SECONDS),
    Series("chorus_prompt_fetched_bytes_total", "counter", "Bytes of prompts fetched from the store."),
    Series(COMPILES, "counter", "Programs compiled, by program and cause.", ("program", "cause")),
    Series("chorus_compile_seconds", "histogram", "Seconds of one compile.", ("cause",), COMPILE_SECONDS),
    Series("chorus_uploads_accepted_total", "counter", "Prompts uploaded, those already there included."),
    Series("chorus_uploads_refused_total", "counter", "Uploads refused, by the error's code.", ("reason",)),
    Series("chorus_files_accepted_total", "counter", "Files of training data that were taken."),
    Series("chorus_files_accepted_bytes_total", "counter", "Bytes of these files."),
    Series(
        "chorus_files_refused_total",
        "counter",
        "Files refused, by the error's code; a caller who leaves is `cancelled`.",
        ("reason",),
    ),
    Series("chorus_tuning_runs_total", "counter", "Runs of tuning jobs that were begun in this process."),
    Series(
        "chorus_tuning_runs_ended_total",
        "counter",
        "Runs by how they ended; `released` for the next process, `lost` to another one.",
        ("ending",),
    ),
    Series("chorus_tuning_steps_total", "counter", "Optimiser steps."),
    Series(
        "chorus_tuning_slice_seconds",
        "histogram",
        "Seconds of one slice of training or evaluation; the sum is the device's time.",
        (),
        SECONDS,
    ),
    Series("chorus_tuning_checkpoints_total", "counter", "States of tuning jobs written to the disk."),
    Series(
        "chorus_collections_total",
        "counter",
        "Collections of unneeded blobs: `true`, `false`, or `refused` until an operator has looked.",
        ("ok",),
    ),
    Series(
        "chorus_collected_blobs_total",
        "counter",
        "Blobs collected, of deleted versions and of unfinished uploads.",
    ),
    Series(
        "chorus_collected_bytes_total",
        "counter",
        "Bytes of the collected blobs, and of data files.",
    ),
    Series("chorus_ready", "gauge", "1 while requests are taken."),
    Series(
        "chorus_request_body_bytes",
        "gauge",
        "Bytes of request bodies in memory, the first 64 KiB of each not counted.",
    ),
    Series("chorus_queued_requests", "gauge", "Requests that wait for the device."),
    Series("chorus_loading_requests", "gauge", "Requests that wait for their prompt."),
    Series("chorus_prefilling_requests", "gauge", "Requests in an encoder pass."),
    Series("chorus_decoding_requests", "gauge", "Requests in decode."),
    Series("chorus_permits", "gauge", "Accepted requests whose outcome or clean-up is still to come."),
    Series("chorus_slots_in_use", "gauge", "Decode rows in use."),
    Series("chorus_slots", "gauge", "Decode rows there are."),
    Series("chorus_encoder_memories", "gauge", "Encoded inputs held for decoding."),
    Series("chorus_prompt_rows_capacity", "gauge", "Rows of the device's prompt table."),
    Series("chorus_prompt_rows_resident", "gauge", "Rows of the table that hold a prompt."),
    Series("chorus_prompt_rows_in_use", "gauge", "Rows that a step in flight reads."),
    Series("chorus_prompt_rows_bytes", "gauge", "Device bytes of the rows that hold a prompt."),
    Series("chorus_host_prompt_bytes", "gauge", "Bytes of prompts kept in host memory."),
    Series("chorus_host_prompts", "gauge", "Prompts kept in host memory."),
    Series("chorus_tuning_running", "gauge", "1 while this process has a tuning job in hand."),
    Series("chorus_job_followers", "gauge", "Connections that follow a tuning job."),
    Series("chorus_steps", "gauge", "Steps dispatched since the start."),
    Series(
        "chorus_log_lines_lost",
        "gauge",
        "Lines of the log that nobody took since the start: no reader, a slow one, or a full disk.",
    ),
)


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


class Metrics:
    """The metric objects, registered in a registry of their own.

    Args:
        registry: never the process-wide default, so that two servers can live in one test.
        tenant_series: cap of the `tenant` label.
        task_series: cap of the `task` label.
    """

    def __init__(self, registry: CollectorRegistry, tenant_series: int = 50, task_series: int = 200) -> None:
        self.registry = registry
        self.tenant = LabelCap(tenant_series)
        self.task = LabelCap(task_series)
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._labelled: dict[tuple[str, ...], Any] = {}
        for series in SERIES:
            if series.kind == "counter" and series.name != COMPILES:
                self._counters[series.name] = Counter(
                    series.name, series.description, series.labels, registry=registry
                )
            elif series.kind == "histogram":
                self._histograms[series.name] = Histogram(
                    series.name, series.description, series.labels, registry=registry, buckets=series.buckets
                )

    def count(self, name: str, amount: float = 1, *labels: str) -> None:
        """Add to a counter."""
        self._series(self._counters[name], name, labels).inc(amount)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Add to a histogram."""
        self._series(self._histograms[name], name, labels).observe(value)

    def _series(self, metric: M, name: str, labels: tuple[str, ...]) -> M:
        """The one with these labels, kept: the library takes several times as long to find it again."""
        if not labels:
            return metric
        key = (name, *labels)
        found: M | None = self._labelled.get(key)
        if found is None:
            found = self._labelled[key] = metric.labels(*labels)
        return found

    def watch_compiles(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Show `chorus_compiles_total`: `read` gives compiles by program and cause at each scrape."""
        self.registry.register(_Compiles(read))

    def watch(self, read: Callable[[], dict[str, float]]) -> None:
        """Show gauges: `read` gives values by name at each scrape."""
        self.registry.register(_Gauges(read))


class _Compiles(Collector):
    """Compiles as the compiler's own events count them, read when somebody scrapes."""

    def __init__(self, read: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._read = read

    def describe(self) -> Iterable[CounterMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = self._family()
        for (program, cause), count in sorted(self._read().items()):
            family.add_metric([program, cause], count)
        yield family

    def _family(self) -> CounterMetricFamily:
        series = next(series for series in SERIES if series.name == COMPILES)
        return CounterMetricFamily(series.name, series.description, labels=series.labels)


class _Gauges(Collector):
    """Gauges that are read when somebody scrapes, so that they cost nothing in between."""

    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        self._read = read

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [GaugeMetricFamily(s.name, s.description) for s in SERIES if s.kind == "gauge"]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        values = self._read()
        for series in SERIES:
            if series.kind == "gauge":
                yield GaugeMetricFamily(series.name, series.description, value=values.get(series.name, 0.0))
