from __future__ import annotations

import re
import time

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chorus_server.api.metrics import Metrics
from chorus_server.engine.requests import Origin, Timings
from chorus_server.engine.stats import EngineStats
from chorus_server.metrics import OTHER, Counter, Gauge, Histogram, LabelCap, MetricsRegistry
from tests.places import FIXTURES

FILLED = FIXTURES / "metrics" / "filled.txt"


def filled() -> Metrics:
    metrics = Metrics(tenant_series=2, task_series=3)
    api, engine, tuning = metrics.api, metrics.engine, metrics.tuning
    stats = EngineStats(
        queued=3,
        prefilling=1,
        decoding=2,
        slots_in_use=4,
        slots_total=16,
        rows_capacity=256,
        rows_resident=40,
        prompts_resident=2,
        queued_units=700,
        resident_tasks=("t/task-1", "t/task-0"),
        waiting_tasks=("t/task-2",),
    )
    engine.watch(lambda: stats, 52)
    metrics.compiles.total.watch(lambda: {("decode", "startup"): 4})
    api.ready.watch(lambda: True)
    for index in range(6):
        origin = Origin(f"r{index}", tenant=f"tenant-{index}", task=f"t/task-{index}", version=index)
        engine.first_token_seconds.observe(0.0007)
        timings = Timings(0.001, 0.002, 0.003, 0.0007)
        engine.request_done(origin, "generate", "ok", timings, 10, 4)
        engine.request_done(origin, "score", "cancelled", None, 10, 0)
    engine.requests_refused.inc(1, "overloaded")
    engine.prefill_step("generate", rows=3, tasks=2, real_tokens=100, padded_tokens=512, seconds=0.004)
    engine.decode_step(5, 0.002)
    engine.prompt_hits.inc(7)
    engine.prompt_loads.inc(2)
    engine.prompt_evictions.inc(1)
    engine.prompt_fetched(0.01, 4096, True)
    engine.prompt_fetched(0.01, 0, False)
    metrics.compiles.seconds.observe(2.0, "startup")
    api.uploads_accepted.inc()
    api.uploads_refused.inc(1, "not_finite")
    api.files_refused.inc(1, "file_too_large")
    metrics.tenancy.key_lookups.inc(1, "found")
    metrics.jobs.runs.inc(1, "batch")
    metrics.jobs.rows.inc(32, "batch")
    metrics.jobs.runs_ended.inc(1, "batch", "succeeded")
    tuning.runs.inc()
    tuning.slice_seconds.observe(0.03)
    tuning.steps.inc()
    tuning.checkpoints_written.inc()
    tuning.compiles.seconds.observe(3.0, "tuning")
    tuning.runs_ended.inc(1, "succeeded")
    api.collections.inc(1, "true")
    metrics.budgets.refused.inc(1, "per_minute.requests")
    metrics.budgets.warnings.inc(1, "per_month.tokens")
    metrics.budgets.failures.inc()
    metrics.usage.rows_written.inc(3)
    metrics.usage.rows_lost.inc(2, "full")
    api.request_seconds.observe(0.01, "/v1/generate", "200")
    return metrics


def lines(metrics: Metrics) -> list[str]:
    """Of the exposition, sorted, but for the buckets, when a series was made, and what the time is."""
    shown = generate_latest(metrics.registry).decode().splitlines()
    kept = (line for line in shown if not re.search("_bucket|_created", line))
    return sorted(re.sub(r"(_info\{.*\}) .*", r"\1", line) for line in kept)


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
    for series in Metrics().registry.table:
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
    assert (value(samples, "chorus_ready"), value(samples, "chorus_slots_in_use")) == (1, 4)


def test_series_that_clients_choose_are_capped(
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float],
) -> None:
    tenants = {dict(labels)["tenant"] for name, labels in samples if name == "chorus_tenant_requests_total"}
    tasks = {dict(labels)["task"] for name, labels in samples if name == "chorus_task_requests_total"}
    assert tenants == {"tenant-0", "tenant-1", OTHER}
    assert tasks == {"t/task-0", "t/task-1", "t/task-2", OTHER}
    versions = {
        dict(labels)["version"] for name, labels in samples if name == "chorus_version_requests_total"
    }
    assert versions == {"0", "1", "2", OTHER}
    other = value(samples, "chorus_version_requests_total", task=OTHER, version=OTHER, outcome="ok")
    assert other == 3
    assert value(samples, "chorus_tenant_requests_total", tenant=OTHER, outcome="ok") == 4


@pytest.mark.parametrize(("capped", "most"), [(True, 1000), (False, 1e9)])
def test_ten_thousand_tasks_of_a_thousand_tenants_stay_a_short_page(capped: bool, most: float) -> None:
    """The control has no cap: its page has a line for each task and tenant."""
    metrics = Metrics() if capped else Metrics(tenant_series=10**6, task_series=10**6)
    metrics.engine.watch(EngineStats, 0)
    before = len(lines(metrics))
    for number in range(10_000):
        tenant = f"t{number % 1000}"
        origin = Origin(f"r{number}", tenant=tenant, task=f"{tenant}/task{number}", version=1)
        metrics.engine.request_done(origin, "generate", "ok", Timings(0.1, 0.1, 0.1, 0.1), 10, 4)
    more = len(lines(metrics)) - before
    assert (50 + 400 < more <= most) if capped else more > 10_000


def test_a_cap_of_zero_shows_only_other() -> None:
    assert LabelCap(0)("a") == OTHER
    cap = LabelCap(1)
    assert [cap("a"), cap("b"), cap("a")] == ["a", OTHER, "a"]


def test_the_table_is_well_formed() -> None:
    table = Metrics().registry.table
    assert len({series.name for series in table}) == len(table)
    for series in table:
        assert re.fullmatch(r"chorus_[a-z_]+", series.name)
        assert (series.kind == "counter") == series.name.endswith("_total")
        assert bool(series.buckets) == (series.kind == "histogram")
        assert list(series.buckets) == sorted(series.buckets)
        assert series.description.endswith(".")


def test_two_servers_live_in_one_process() -> None:
    filled()
    filled()


def test_what_cannot_be_counted_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    registry = MetricsRegistry()
    plain = Counter(registry, "chorus_plain_total", "Plain.")
    labelled = Histogram(registry, "chorus_labelled", "Labelled.", (1.0,), ("kind",))
    for count in (
        lambda: plain.inc(-1),
        lambda: plain.inc(1, "a label too many"),
        lambda: labelled.observe(1),
        lambda: labelled.observe(1, "two", "labels"),
        lambda: labelled.observe("no number", "a"),  # type: ignore[arg-type]
    ):
        caplog.clear()
        count()
        (record,) = caplog.records
        assert "could not be counted" in record.getMessage() and record.exc_info is not None
    plain.inc()
    labelled.observe(0.5, "a")
    assert registry.get_sample_value("chorus_plain_total") == 1
    assert registry.get_sample_value("chorus_labelled_count", {"kind": "a"}) == 1


def test_a_gauge_is_read_when_somebody_looks() -> None:
    registry, held = MetricsRegistry(), [1, 2]
    gauge = Gauge(registry, "chorus_held", "Held.")
    assert registry.get_sample_value("chorus_held") == 0
    gauge.watch(lambda: len(held))
    held.append(3)
    assert registry.get_sample_value("chorus_held") == 3


def test_the_endpoint_picker_finds_what_it_reads() -> None:
    """Types and labels are those of the model server protocol of the Gateway API Inference Extension."""
    families = {
        family.name: family
        for family in text_string_to_metric_families(generate_latest(filled().registry).decode())
    }
    values = {"chorus_queued_requests": 3, "chorus_running_requests": 3, "chorus_cache_usage": 0.25}
    for name, expected in values.items():
        assert families[name].type == "gauge"
        (sample,) = families[name].samples
        assert (sample.labels, sample.value) == ({}, expected)
    (listed,) = families["chorus_lora_requests_info"].samples
    assert listed.labels == {
        "max_lora": str(256 * 2 // 40),
        "running_lora_adapters": "t/task-1,t/task-0",
        "waiting_lora_adapters": "t/task-2",
    }
    assert abs(listed.value - time.time()) < 3600
