"""Prometheus series of tuning jobs. Metrics of answers are in `server/chorus_server/quality/metrics.py`."""

from __future__ import annotations

from chorus_server.engine.metrics import CompileMetrics
from chorus_server.metrics import SECONDS, Counter, Gauge, Histogram, MetricsRegistry


class TuningMetrics:
    """Counts runs of jobs and their work on the device.

    Attributes:
        compiles: shared with everything that compiles; tuning's cause is `tuning`.
    """

    def __init__(self, registry: MetricsRegistry, compiles: CompileMetrics) -> None:
        self.compiles = compiles
        self.runs = Counter(
            registry, "chorus_tuning_runs_total", "Runs of tuning jobs that were begun in this process."
        )
        self.runs_ended = Counter(
            registry,
            "chorus_tuning_runs_ended_total",
            "Runs by how they ended; `released` for the next process, `lost` to another one.",
            ("ending",),
        )
        self.steps = Counter(registry, "chorus_tuning_steps_total", "Optimiser steps.")
        self.slice_seconds = Histogram(
            registry,
            "chorus_tuning_slice_seconds",
            "Seconds of one slice of training or evaluation; the sum is the device's time.",
            SECONDS,
        )
        self.checkpoints_written = Counter(
            registry, "chorus_tuning_checkpoints_total", "States of tuning jobs written to the disk."
        )
        self.running = Gauge(
            registry, "chorus_tuning_running", "1 while this process has a tuning job in hand."
        )
