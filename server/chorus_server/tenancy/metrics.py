"""What the checking of keys counts."""

from __future__ import annotations

from chorus_server.metrics import Counter, MetricsRegistry


class TenancyMetrics:
    """Keys that had to be looked up, because nothing was known of them any more."""

    def __init__(self, registry: MetricsRegistry) -> None:
        self.key_lookups = Counter(
            registry,
            "chorus_key_lookups_total",
            "Keys looked up in the database: `found`, `unknown`, or `refused` for too many unknown ones.",
            ("result",),
        )
