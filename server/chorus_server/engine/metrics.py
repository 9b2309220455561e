"""The engine's Prometheus series. They are counted on the engine's thread, where each event is a few
additions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from chorus_server.engine.requests import Origin, RequestKind, Timings
from chorus_server.engine.stats import EngineStats
from chorus_server.metrics import (
    OTHER,
    SECONDS,
    Counter,
    Gauges,
    Histogram,
    LabelCap,
    MetricsRegistry,
    Series,
    WatchedCounter,
)

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_COMPILE_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_BASE_TASK = "base"


class EngineMetrics:
    """Requests, steps and prompts.

    Args:
        tenant_series: how many tenants have a series of their own.
        task_series: how many tasks have a series of their own, and how many versions.
    """

    def __init__(self, registry: MetricsRegistry, tenant_series: int = 50, task_series: int = 200) -> None:
        made, kind = registry, ("kind",)
        self._tenant = LabelCap(tenant_series)
        self._task = LabelCap(task_series)
        self._version = LabelCap(task_series)
        self._row_bytes = 0
        # Requests.
        self.requests = Counter(
            made, "chorus_requests_total", "Engine requests, by outcome.", ("kind", "outcome")
        )
        self.requests_refused = Counter(
            made,
            "chorus_requests_refused_total",
            "Engine requests refused at submission, by error code.",
            ("code",),
        )
        self.request_seconds = Histogram(
            made,
            "chorus_request_seconds",
            "Seconds from submission to outcome of answered requests.",
            SECONDS,
            kind,
        )
        self.queue_seconds = Histogram(
            made, "chorus_queue_seconds", "Seconds a request waited for its prefill step.", SECONDS, kind
        )
        self.prefill_seconds = Histogram(
            made, "chorus_prefill_seconds", "Seconds that a request's prefill step took.", SECONDS, kind
        )
        self.decode_seconds = Histogram(
            made,
            "chorus_decode_seconds",
            "Seconds from a request's prefill step to its last token.",
            SECONDS,
            kind,
        )
        self.first_token_seconds = Histogram(
            made, "chorus_first_token_seconds", "Seconds from submission to the first token.", SECONDS
        )
        self.input_tokens = Counter(
            made, "chorus_input_tokens_total", "Input tokens: prompts, texts and </s>."
        )
        self.output_tokens = Counter(made, "chorus_output_tokens_total", "Output tokens, without </s>.")
        self.tenant_requests = Counter(
            made,
            "chorus_tenant_requests_total",
            "Engine requests by tenant; later tenants count as other.",
            ("tenant", "outcome"),
        )
        self.tenant_tokens = Counter(
            made,
            "chorus_tenant_tokens_total",
            "Tokens by tenant; later tenants count as other.",
            ("tenant", "direction"),
        )
        self.task_requests = Counter(
            made,
            "chorus_task_requests_total",
            "Engine requests by task; later tasks count as other.",
            ("task", "outcome"),
        )
        self.version_requests = Counter(
            made,
            "chorus_version_requests_total",
            "Engine requests by version of a task; later versions count as other.",
            ("task", "version", "outcome"),
        )
        # Steps.
        self.batch_rows = Histogram(made, "chorus_batch_rows", "Requests in one prefill step.", _ROWS, kind)
        self.batch_tasks = Histogram(
            made, "chorus_batch_tasks", "Distinct tasks in one prefill step.", _ROWS, kind
        )
        self.padding_share = Histogram(
            made, "chorus_padding_share", "Share of a prefill step that was padding.", _SHARE, kind
        )
        self.real_tokens = Counter(
            made, "chorus_real_tokens_total", "Tokens in prefill steps that belonged to requests."
        )
        self.padded_tokens = Counter(
            made, "chorus_padded_tokens_total", "Tokens in prefill steps, including padding."
        )
        self.prefill_step_seconds = Histogram(
            made, "chorus_prefill_step_seconds", "Seconds of one prefill step.", SECONDS, kind
        )
        self.decode_step_seconds = Histogram(
            made, "chorus_decode_step_seconds", "Seconds of one decode dispatch.", SECONDS
        )
        self.decode_slots = Histogram(
            made, "chorus_decode_slots", "Active slots of one decode dispatch.", _ROWS
        )
        # Prompts.
        self.prompt_hits = Counter(
            made, "chorus_prompt_hits_total", "Prompts of a batch that were already in the device table."
        )
        self.prompt_loads = Counter(made, "chorus_prompt_loads_total", "Prompts written to the device table.")
        self.prompt_evictions = Counter(
            made, "chorus_prompt_evictions_total", "Prompts evicted from the device table."
        )
        self.prompt_fetches = Counter(
            made, "chorus_prompt_fetches_total", "Prompts fetched from the store.", ("ok",)
        )
        self.prompt_fetch_seconds = Histogram(
            made, "chorus_prompt_fetch_seconds", "Seconds of one fetch from the store.", SECONDS
        )
        self.prompt_fetched_bytes = Counter(
            made, "chorus_prompt_fetched_bytes_total", "Bytes of prompts fetched from the store."
        )
        self._gauges = Gauges[EngineStats](
            made,
            EngineStats,
            ("chorus_queued_requests", "Requests that wait for the device.", lambda now: now.queued),
            (
                "chorus_queued_work_units",
                "Work units that the requests which wait, for the device or a prompt, may cost.",
                lambda now: now.queued_units,
            ),
            ("chorus_running_requests", "Requests on the device.", lambda now: now.running),
            ("chorus_loading_requests", "Requests that wait for their prompt.", lambda now: now.loading),
            ("chorus_prefilling_requests", "Requests in a prefill step.", lambda now: now.prefilling),
            ("chorus_decoding_requests", "Requests that decode.", lambda now: now.decoding),
            (
                "chorus_permits",
                "Accepted requests that have no outcome yet or still hold something.",
                lambda now: now.permits,
            ),
            ("chorus_slots_in_use", "Decode slots in use.", lambda now: now.slots_in_use),
            ("chorus_slots", "Decode slots in all.", lambda now: now.slots_total),
            (
                "chorus_cache_usage",
                "Share of the decode slots in use, 0 to 1: a slot holds a sequence's keys and values.",
                lambda now: now.slots_in_use / max(1, now.slots_total),
            ),
            (
                "chorus_encoder_memories",
                "Encoded inputs held for decoding.",
                lambda now: now.encoder_memories,
            ),
            (
                "chorus_prompt_rows_capacity",
                "Rows of the device's prompt table.",
                lambda now: now.rows_capacity,
            ),
            (
                "chorus_prompt_rows_resident",
                "Rows of the table that hold a prompt.",
                lambda now: now.rows_resident,
            ),
            (
                "chorus_prompt_rows_in_use",
                "Rows that a step in flight reads.",
                lambda now: now.rows_in_use,
            ),
            (
                "chorus_prompt_rows_bytes",
                "Device bytes of the rows that hold a prompt.",
                lambda now: now.rows_resident * self._row_bytes,
            ),
            (
                "chorus_host_prompt_bytes",
                "Bytes of prompts kept in host memory.",
                lambda now: now.host_bytes,
            ),
            ("chorus_host_prompts", "Prompts kept in host memory.", lambda now: now.host_prompts),
            ("chorus_steps", "Steps dispatched since the start.", lambda now: now.steps),
        )
        self._tasks_listed = TasksListed(made)

    def watch(self, read: Callable[[], EngineStats], row_bytes: int) -> None:
        """Let the gauges read this engine; `row_bytes` is the device size of one prompt row."""
        self._row_bytes = row_bytes
        self._gauges.watch(read)
        self._tasks_listed.read = read

    def request_done(
        self,
        origin: Origin,
        kind: RequestKind,
        outcome: str,
        timings: Timings | None,
        input_tokens: int,
        output_tokens: int,
    ) -> None:
        """Count a request's one outcome.

        Args:
            outcome: `ok`, or the error's code.
            timings: None if the request never reached the device.
            output_tokens: without `</s>`.
        """
        tenant = self._tenant(origin.tenant)
        self.requests.inc(1, kind, outcome)
        self.tenant_requests.inc(1, tenant, outcome)
        self.task_requests.inc(1, self._task(origin.task or _BASE_TASK), outcome)
        if origin.version is not None:
            named = self._version(f"{origin.task}@{origin.version}")
            self.version_requests.inc(1, *(named.split("@") if named != OTHER else (OTHER, OTHER)), outcome)
        if timings is None:
            return
        self.input_tokens.inc(input_tokens)
        self.output_tokens.inc(output_tokens)
        self.tenant_tokens.inc(input_tokens, tenant, "in")
        self.tenant_tokens.inc(output_tokens, tenant, "out")
        self.queue_seconds.observe(timings.queue, kind)
        self.prefill_seconds.observe(timings.prefill, kind)
        self.decode_seconds.observe(timings.decode, kind)
        if outcome == "ok":
            self.request_seconds.observe(timings.queue + timings.prefill + timings.decode, kind)

    def prefill_step(
        self,
        kind: RequestKind,
        *,
        rows: int,
        tasks: int,
        real_tokens: int,
        padded_tokens: int,
        seconds: float,
    ) -> None:
        """Count one prefill step whose result was read.

        Args:
            rows: requests in it.
            tasks: how many different tasks these have.
            real_tokens: those that belonged to requests; `padded_tokens` are all tokens of the bucket.
            seconds: from dispatch until the result was read, including the wait for the step before.
        """
        self.batch_rows.observe(rows, kind)
        self.batch_tasks.observe(tasks, kind)
        self.padding_share.observe(1 - real_tokens / max(1, padded_tokens), kind)
        self.prefill_step_seconds.observe(seconds, kind)
        self.real_tokens.inc(real_tokens)
        self.padded_tokens.inc(padded_tokens)

    def decode_step(self, active_slots: int, seconds: float) -> None:
        """Count one decode dispatch whose result was read.

        Args:
            active_slots: slots that belonged to a request when it was dispatched.
        """
        self.decode_step_seconds.observe(seconds)
        self.decode_slots.observe(active_slots)

    def prompt_fetched(self, seconds: float, size_bytes: int, ok: bool) -> None:
        """Count one fetch from the store into the host tier."""
        self.prompt_fetches.inc(1, "true" if ok else "false")
        self.prompt_fetch_seconds.observe(seconds)
        self.prompt_fetched_bytes.inc(size_bytes)


class TasksListed(Collector):
    """Which tasks' prompts are on the device and which wait, in the form in which the endpoint picker of the
    Gateway API Inference Extension reads adapters: names in labels, and the time as the value."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.read: Callable[[], EngineStats] = EngineStats
        self._series = Series(
            "chorus_lora_requests_info",
            "gauge",
            "Tasks whose prompts are on the device or that wait, at most 64 each; the value is the time.",
            ("max_lora", "running_lora_adapters", "waiting_lora_adapters"),
        )
        registry.register(self)
        registry.table.append(self._series)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [self._family()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        now, family = self.read(), self._family()
        labels = (str(now.prompts_fit), ",".join(now.resident_tasks), ",".join(now.waiting_tasks))
        family.add_metric(labels, time.time())
        yield family

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._series.name, self._series.description, labels=self._series.labels)


class CompileMetrics:
    """What was compiled, by cause: `startup`, `tuning`, or `request`, which should stay at 0."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.total = WatchedCounter(
            registry,
            "chorus_compiles_total",
            "Programs compiled, by program and cause.",
            ("program", "cause"),
        )
        self.seconds = Histogram(
            registry, "chorus_compile_seconds", "Seconds of one compile.", _COMPILE_SECONDS, ("cause",)
        )
