"""Series about keys and about what tenants use."""

from __future__ import annotations

from chorus_server.metrics import Counter, Gauge, MetricsRegistry
from prompts_store.budgets.records import LIMIT_NAMES


class TenancyMetrics:
    """Keys that had to be looked up, because nothing was known of them any more."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.key_lookups = Counter(
            registry,
            "chorus_key_lookups_total",
            "Keys looked up in the database: `found`, `unknown`, or `refused` for too many unknown ones.",
            ("result",),
        )


class BudgetMetrics:
    """What limits refuse, and how leasing goes."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.refused = Counter(
            registry,
            "chorus_budget_refusals_total",
            "Requests refused by a limit of their tenant or key, by the limit.",
            ("limit",),
        )
        self.warnings = Counter(
            registry,
            "chorus_budget_warnings_total",
            "Soft limits that were passed: once a month for each in each process.",
            ("limit",),
        )
        self.failures = Counter(
            registry,
            "chorus_budget_lease_failures_total",
            "Times that the database could not be asked for budgets.",
        )
        for name in LIMIT_NAMES:
            self.refused.inc(0, name)


class UsageMetrics:
    """How rows of usage come to the database."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.rows_written = Counter(
            registry, "chorus_usage_rows_written_total", "Rows of usage written to the database."
        )
        self.rows_lost = Counter(
            registry,
            "chorus_usage_rows_lost_total",
            "Rows of usage that are not counted: `full` came when the spool had no room, `unreadable` were "
            "cut off or damaged in it.",
            ("reason",),
        )
        self.spool_bytes = Gauge(
            registry, "chorus_usage_spool_bytes", "Bytes of usage that are not in the database yet."
        )
        # An alert on their increase needs to have seen them at 0.
        for reason in ("full", "unreadable"):
            self.rows_lost.inc(0, reason)
