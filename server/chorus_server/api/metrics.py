"""Everything that `/metrics` shows. Each package has one object, and counts where something happens."""

from __future__ import annotations

from chorus_server.engine.metrics import CompileMetrics, EngineMetrics
from chorus_server.metrics import SECONDS, Counter, Gauge, Histogram, MetricsRegistry
from chorus_server.tenancy.metrics import BudgetMetrics, TenancyMetrics, UsageMetrics
from chorus_server.tuning.jobs.attempts.metrics import TuningMetrics


class ApiMetrics:
    """Metrics of HTTP requests, uploads, upkeep and the process itself."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.request_seconds = Histogram(
            registry,
            "chorus_http_request_seconds",
            "Seconds from the first byte of a request to the last byte of its answer.",
            SECONDS,
            ("route", "status"),
        )
        self.uploads_accepted = Counter(
            registry, "chorus_uploads_accepted_total", "Prompts uploaded, including those already there."
        )
        self.uploads_refused = Counter(
            registry, "chorus_uploads_refused_total", "Prompt uploads refused, by error code.", ("reason",)
        )
        self.files_accepted = Counter(
            registry, "chorus_files_accepted_total", "Files of training data accepted."
        )
        self.files_accepted_bytes = Counter(
            registry, "chorus_files_accepted_bytes_total", "Bytes of the accepted files."
        )
        self.files_refused = Counter(
            registry,
            "chorus_files_refused_total",
            "Files refused, by error code; `cancelled` if the caller left.",
            ("reason",),
        )
        self.collections = Counter(
            registry,
            "chorus_collections_total",
            "Collections of unneeded blobs: `true` succeeded, `false` failed, `refused` needs an operator.",
            ("ok",),
        )
        self.collected_blobs = Counter(
            registry,
            "chorus_collected_blobs_total",
            "Blobs removed, of deleted versions and of unfinished uploads.",
        )
        self.collected_bytes = Counter(
            registry, "chorus_collected_bytes_total", "Bytes of the blobs and data files removed."
        )
        self.ready = Gauge(registry, "chorus_ready", "1 while the server takes requests.")
        self.body_bytes = Gauge(
            registry,
            "chorus_request_body_bytes",
            "Bytes of request bodies in memory, without the first 64 KiB of each.",
        )
        self.job_followers = Gauge(registry, "chorus_job_followers", "Connections that follow a tuning job.")
        self.log_lines_lost = Gauge(
            registry,
            "chorus_log_lines_lost",
            "Log lines lost since the start: nobody read them, a reader was slow, or the disk was full.",
        )


class JobMetrics:
    """Counts runs of jobs that ask the engine, by the jobs' kind, and their work."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.runs = Counter(
            registry, "chorus_jobs_runs_total", "Runs of jobs that were begun in this process.", ("kind",)
        )
        self.runs_ended = Counter(
            registry,
            "chorus_jobs_runs_ended_total",
            "Runs by how they ended; `released` for the next process, `lost` to another one.",
            ("kind", "ending"),
        )
        self.rows = Counter(
            registry,
            "chorus_jobs_rows_total",
            "Rows of evaluations and calibrations, and lines of batches, that were answered.",
            ("kind",),
        )


class Metrics:
    """All series of one server.

    Args:
        tenant_series: how many tenants have a series of their own.
        task_series: how many tasks have a series of their own.
    """

    def __init__(self, tenant_series: int = 50, task_series: int = 200) -> None:
        self.registry = MetricsRegistry()
        self.api = ApiMetrics(self.registry)
        self.engine = EngineMetrics(self.registry, tenant_series, task_series)
        self.compiles = CompileMetrics(self.registry)
        self.tenancy = TenancyMetrics(self.registry)
        self.jobs = JobMetrics(self.registry)
        self.tuning = TuningMetrics(self.registry, self.compiles)
        self.usage = UsageMetrics(self.registry)
        self.budgets = BudgetMetrics(self.registry)
