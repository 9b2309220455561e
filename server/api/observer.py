"""The engine's hooks, turned into metrics; called on the engine's thread, so each is a few additions."""

from __future__ import annotations

from server.api.lifecycle import Lifecycle
from server.engine.observer import DecodeStep, Kind, PrefillStep, RequestDone
from server.engine.requests import Origin
from server.engine.stats import EngineStats
from server.metrics import Metrics

BASE_TASK = "base"


class MetricsObserver:
    """An `EngineObserver` that counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def request_accepted(self, origin: Origin, kind: Kind) -> None:
        return None

    def request_refused(self, origin: Origin, code: str) -> None:
        self._metrics.count("chorus_requests_refused_total", 1, code)

    def request_done(self, done: RequestDone) -> None:
        count, observe = self._metrics.count, self._metrics.observe
        tenant = self._metrics.tenant(done.origin.tenant)
        count("chorus_requests_total", 1, done.kind, done.outcome)
        count("chorus_tenant_requests_total", 1, tenant, done.outcome)
        count(
            "chorus_task_requests_total", 1, self._metrics.task(done.origin.task or BASE_TASK), done.outcome
        )
        if done.timings is None:
            return
        count("chorus_input_tokens_total", done.input_tokens)
        count("chorus_output_tokens_total", done.output_tokens)
        count("chorus_tenant_tokens_total", done.input_tokens, tenant, "in")
        count("chorus_tenant_tokens_total", done.output_tokens, tenant, "out")
        timings = done.timings
        observe("chorus_queue_seconds", timings.queue, done.kind)
        observe("chorus_prefill_seconds", timings.prefill, done.kind)
        observe("chorus_decode_seconds", timings.decode, done.kind)
        if done.outcome == "ok":
            total = timings.queue + timings.prefill + timings.decode
            observe("chorus_request_seconds", total, done.kind)

    def first_token(self, origin: Origin, seconds: float) -> None:
        self._metrics.observe("chorus_first_token_seconds", seconds)

    def prefill_step(self, step: PrefillStep) -> None:
        count, observe = self._metrics.count, self._metrics.observe
        observe("chorus_batch_rows", step.rows, step.kind)
        observe("chorus_batch_tasks", step.distinct_tasks, step.kind)
        observe("chorus_padding_share", 1 - step.real_tokens / max(1, step.padded_tokens), step.kind)
        observe("chorus_prefill_step_seconds", step.seconds, step.kind)
        count("chorus_real_tokens_total", step.real_tokens)
        count("chorus_padded_tokens_total", step.padded_tokens)

    def decode_step(self, step: DecodeStep) -> None:
        self._metrics.observe("chorus_decode_step_seconds", step.seconds)
        self._metrics.observe("chorus_decode_slots", step.active_slots)

    def prompt_rows(self, hits: int, loads: int, evictions: int) -> None:
        self._metrics.count("chorus_prompt_hits_total", hits)
        self._metrics.count("chorus_prompt_loads_total", loads)
        self._metrics.count("chorus_prompt_evictions_total", evictions)

    def prompt_loaded(self, seconds: float, size_bytes: int, ok: bool) -> None:
        self._metrics.count("chorus_prompt_fetches_total", 1, "true" if ok else "false")
        self._metrics.observe("chorus_prompt_fetch_seconds", seconds)
        self._metrics.count("chorus_prompt_fetched_bytes_total", size_bytes)

    def compiled(self, program: str, cause: str, seconds: float) -> None:
        self._metrics.observe("chorus_compile_seconds", seconds, cause)


def gauges(stats: EngineStats, lifecycle: Lifecycle, row_bytes: int = 0) -> dict[str, float]:
    """Gauge values by name at one instant; `row_bytes` is the device size of one prompt row."""
    return {
        "chorus_ready": 1.0 if lifecycle.phase == "ready" else 0.0,
        "chorus_queued_requests": stats.queued,
        "chorus_loading_requests": stats.loading,
        "chorus_prefilling_requests": stats.prefilling,
        "chorus_decoding_requests": stats.decoding,
        "chorus_permits": stats.permits,
        "chorus_slots_in_use": stats.slots_in_use,
        "chorus_slots": stats.slots_total,
        "chorus_encoder_memories": stats.encoder_memories,
        "chorus_prompt_rows_capacity": stats.rows_capacity,
        "chorus_prompt_rows_resident": stats.rows_resident,
        "chorus_prompt_rows_in_use": stats.rows_in_use,
        "chorus_prompt_rows_bytes": stats.rows_resident * row_bytes,
        "chorus_host_prompt_bytes": stats.host_bytes,
        "chorus_host_prompts": stats.host_prompts,
        "chorus_steps": stats.steps,
    }
