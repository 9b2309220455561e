from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server.api.lifecycle import Lifecycle
from server.api.observer import MetricsObserver, gauges
from server.engine.observer import DecodeStep, PrefillStep, RequestDone
from server.engine.plans import BlockShape
from server.engine.requests import Origin, Timings
from server.engine.stats import EngineStats
from server.metrics import OTHER, SERIES, LabelCap, Metrics
from server.tuning_wiring import MetricsTuningObserver

FILLED = Path(__file__).parents[1] / "fixtures" / "metrics" / "filled.txt"


def filled() -> Metrics:
    metrics = Metrics(CollectorRegistry(), tenant_series=2, task_series=3)
    observer = MetricsObserver(metrics)
    lifecycle = Lifecycle()
    lifecycle.ready()
    metrics.watch(
        lambda: gauges(EngineStats(queued=3, slots_in_use=5, slots_total=16, rows_resident=40), lifecycle, 52)
    )
    metrics.watch_compiles(lambda: {("decode", "startup"): 4})
    for index in range(6):
        origin = Origin(f"r{index}", tenant=f"tenant-{index}", task=f"t/task-{index}")
        observer.request_accepted(origin, "generate")
        observer.first_token(origin, 0.0007)
        timings = Timings(0.001, 0.002, 0.003, 0.0007)
        observer.request_done(RequestDone(origin, "generate", "ok", timings, 10, 4))
        observer.request_done(RequestDone(origin, "score", "cancelled", None, 10, 0))
    observer.request_refused(Origin("x"), "overloaded")
    observer.prefill_step(PrefillStep("generate", (8, 64), 3, 2, 100, 512, 0.004))
    observer.decode_step(DecodeStep(BlockShape(64, 32, 8), 5, 20, 0.002))
    observer.prompt_rows(7, 2, 1)
    observer.prompt_loaded(0.01, 4096, True)
    observer.prompt_loaded(0.01, 0, False)
    observer.compiled("decode", "startup", 2.0)
    metrics.count("chorus_uploads_accepted_total")
    metrics.count("chorus_uploads_refused_total", 1, "not_finite")
    metrics.count("chorus_files_refused_total", 1, "file_too_large")
    tuning = MetricsTuningObserver(metrics)
    tuning.job_claimed()
    tuning.device_slice(0.03)
    tuning.step_done()
    tuning.checkpoint_written()
    tuning.compiled("accumulate[48]", 3.0)
    tuning.job_ended("succeeded")
    metrics.count("chorus_collections_total", 1, "true")
    metrics.observe("chorus_http_request_seconds", 0.01, "/v1/generate", "200")
    return metrics


def lines(metrics: Metrics) -> list[str]:
    """Of the exposition, sorted, but for the buckets and when a series was made."""
    shown = generate_latest(metrics.registry).decode().splitlines()
    return sorted(line for line in shown if not re.search("_bucket|_created", line))


def test_every_event_is_counted_as_ever() -> None:
    assert lines(filled()) == FILLED.read_text().splitlines()


@pytest.fixture(scope="module")
def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(filled().registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    return samples[(name, tuple(sorted(labels.items())))]


def test_every_series_is_shown_when_something_happened(
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float],
) -> None:
    shown = {name for name, _ in samples}
    for series in SERIES:
        assert (f"{series.name}_count" if series.kind == "histogram" else series.name) in shown
    assert all(name.startswith("chorus_") for name in shown)


def test_what_happened_is_counted(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> None:
    assert value(samples, "chorus_requests_total", kind="generate", outcome="ok") == 6
    assert value(samples, "chorus_requests_total", kind="score", outcome="cancelled") == 6
    assert value(samples, "chorus_requests_refused_total", code="overloaded") == 1
    assert (value(samples, "chorus_input_tokens_total"), value(samples, "chorus_output_tokens_total")) == (
        60,
        24,
    )
    assert value(samples, "chorus_batch_tasks_sum", kind="generate") == 2
    assert value(samples, "chorus_padding_share_sum", kind="generate") == pytest.approx(1 - 100 / 512)
    assert value(samples, "chorus_prompt_hits_total") == 7
    assert value(samples, "chorus_prompt_fetched_bytes_total") == 4096
    assert value(samples, "chorus_compiles_total", program="decode", cause="startup") == 4
    assert value(samples, "chorus_first_token_seconds_bucket", le="0.001") == 6
    assert value(samples, "chorus_prompt_rows_bytes") == 40 * 52
    assert (value(samples, "chorus_ready"), value(samples, "chorus_slots_in_use")) == (1, 5)


def test_series_that_clients_choose_are_capped(
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float],
) -> None:
    tenants = {dict(labels)["tenant"] for name, labels in samples if name == "chorus_tenant_requests_total"}
    tasks = {dict(labels)["task"] for name, labels in samples if name == "chorus_task_requests_total"}
    assert tenants == {"tenant-0", "tenant-1", OTHER}
    assert tasks == {"t/task-0", "t/task-1", "t/task-2", OTHER}
    assert value(samples, "chorus_tenant_requests_total", tenant=OTHER, outcome="ok") == 4


def test_a_cap_of_zero_shows_only_other() -> None:
    assert LabelCap(0)("a") == OTHER
    cap = LabelCap(1)
    assert [cap("a"), cap("b"), cap("a")] == ["a", OTHER, "a"]


def test_the_table_is_well_formed() -> None:
    assert len({series.name for series in SERIES}) == len(SERIES)
    for series in SERIES:
        assert re.fullmatch(r"chorus_[a-z_]+", series.name)
        assert (series.kind == "counter") == series.name.endswith("_total")
        assert bool(series.buckets) == (series.kind == "histogram")
        assert list(series.buckets) == sorted(series.buckets)
        assert series.description.endswith(".")


def test_two_servers_live_in_one_process() -> None:
    filled()
    filled()
