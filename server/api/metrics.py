"""Everything that `/metrics` shows: one object a room, each counted where something happens."""

from __future__ import annotations

from server.engine.metrics import CompileMetrics, EngineMetrics
from server.metrics import SECONDS, Counter, Gauge, Histogram, MetricsRegistry
from server.tuning.jobs.attempts.metrics import TuningMetrics


class ApiMetrics:
    """HTTP requests, what is uploaded, upkeep, and the process itself."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.request_seconds = Histogram(
            registry,
            "chorus_http_request_seconds",
            "Seconds from the first byte of a request to the last of its answer.",
            SECONDS,
            ("route", "status"),
        )
        self.uploads_accepted = Counter(
            registry, "chorus_uploads_accepted_total", "Prompts uploaded, those already there included."
        )
        self.uploads_refused = Counter(
            registry, "chorus_uploads_refused_total", "Uploads refused, by the error's code.", ("reason",)
        )
        self.files_accepted = Counter(
            registry, "chorus_files_accepted_total", "Files of training data that were taken."
        )
        self.files_accepted_bytes = Counter(
            registry, "chorus_files_accepted_bytes_total", "Bytes of these files."
        )
        self.files_refused = Counter(
            registry,
            "chorus_files_refused_total",
            "Files refused, by the error's code; a caller who leaves is `cancelled`.",
            ("reason",),
        )
        self.collections = Counter(
            registry,
            "chorus_collections_total",
            "Collections of unneeded blobs: `true`, `false`, or `refused` until an operator has looked.",
            ("ok",),
        )
        self.collected_blobs = Counter(
            registry,
            "chorus_collected_blobs_total",
            "Blobs collected, of deleted versions and of unfinished uploads.",
        )
        self.collected_bytes = Counter(
            registry, "chorus_collected_bytes_total", "Bytes of the collected blobs, and of data files."
        )
        self.ready = Gauge(registry, "chorus_ready", "1 while requests are taken.")
        self.body_bytes = Gauge(
            registry,
            "chorus_request_body_bytes",
            "Bytes of request bodies in memory, the first 64 KiB of each not counted.",
        )
        self.job_followers = Gauge(registry, "chorus_job_followers", "Connections that follow a tuning job.")
        self.log_lines_lost = Gauge(
            registry,
            "chorus_log_lines_lost",
            "Lines of the log that nobody took since the start: no reader, a slow one, or a full disk.",
        )


class Metrics:
    """The series of one server.

    Args:
        tenant_series: cap of the `tenant` label.
        task_series: cap of the `task` label.
    """

    def __init__(self, tenant_series: int = 50, task_series: int = 200) -> None:
        self.registry = MetricsRegistry()
        self.api = ApiMetrics(self.registry)
        self.engine = EngineMetrics(self.registry, tenant_series, task_series)
        self.compiles = CompileMetrics(self.registry)
        self.tuning = TuningMetrics(self.registry, self.compiles)
