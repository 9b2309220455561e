"""Wiring of tuning: a service made from settings and a loaded model, for the server and for `chorus
worker`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chorus_server.api.services import Services, longest_prompt
from chorus_server.api.version import VERSION
from chorus_server.engine.thread.engine import Engine
from chorus_server.jobs.runner import this_process
from chorus_server.jobs_wiring import JOB_LOOK_SECONDS
from chorus_server.settings import Settings
from chorus_server.tuning.jobs.attempts.config import ServiceConfig, TuningBase
from chorus_server.tuning.jobs.worker.service import TuningService

if TYPE_CHECKING:
    from chorus_server.engine.executor import CompileWatch
    from chorus_server.engine.memory_plan import MemoryPlan
    from chorus_server.model.checkpoints import LoadedModel

FOLDER = "tuning"
"""Folder of checkpoints and downloads, in the data folder."""


def service_config(settings: Settings, slice_seconds: float | None = None) -> ServiceConfig:
    """The settings that concern the service."""
    return ServiceConfig(
        folder=settings.data_dir / FOLDER,
        owner=this_process(),
        slice_seconds=slice_seconds or settings.tuning_slice_ms / 1000,
        max_file_bytes=settings.tuning_max_file_bytes,
        data_paths=settings.tuning_data_paths,
        data_urls=settings.tuning_data_urls,
        code_version=VERSION,
    )


def longest_dispatch(settings: Settings) -> float | None:
    """How many seconds a dispatch may take on the engine's thread before the watchdog would take it for
    hung."""
    return settings.step_timeout_seconds / 2 or None


def tuning_base(
    loaded: LoadedModel,
    embeddings: Callable[[], np.ndarray[Any, Any]],
    *,
    memory_room: int,
    max_prompt_rows: int,
    max_label_tokens: int,
) -> TuningBase:
    """The loaded model in the form that jobs train against."""
    assert loaded.vocabulary is not None
    return TuningBase(
        functions=loaded.model.functions,
        params=loaded.model.params,
        vocabulary=loaded.vocabulary,
        fingerprint=loaded.fingerprint,
        embeddings=embeddings,
        memory_room=memory_room,
        max_prompt_rows=max_prompt_rows,
        max_label_tokens=max_label_tokens,
    )


def serve_tuning(
    services: Services, loaded: LoadedModel, watch: CompileWatch, plan: MemoryPlan
) -> TuningService:
    """A started service on the thread of the engine that serves."""
    assert services.serving is not None
    serving = services.serving
    engine, limits = serving.engine, serving.limits
    base = tuning_base(
        loaded,
        serving.base.embeddings,
        memory_room=plan.room,
        max_prompt_rows=longest_prompt(serving.base.prompt_rows, limits),
        max_label_tokens=limits.max_target_tokens,
    )
    service = TuningService(
        services.library.store,
        base,
        replace(
            service_config(services.settings),
            longest_seconds=longest_dispatch(services.settings),
            look_seconds=JOB_LOOK_SECONDS,
        ),
        metrics=services.metrics.tuning,
        because=watch.because,
        alive=lambda: engine.dead is None,
    )
    run_beside(engine, service)
    return service


def run_beside(engine: Engine, service: TuningService) -> None:
    """Start a service whose work the engine does between its own."""
    service.work.connect(engine.wake)
    engine.attach_background(service.work)
    service.start()
