"""A tuning service on the tiny model and a real store in a folder, for tests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from chorus_server.engine.metrics import CompileMetrics
from chorus_server.jobs.leased import LeasedJob
from chorus_server.jobs.slices import DeviceWork, SliceThread
from chorus_server.metrics import Counter, Histogram, MetricsRegistry
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.attempts.config import ServiceConfig, TuningBase
from chorus_server.tuning.jobs.attempts.metrics import TuningMetrics
from chorus_server.tuning.jobs.worker.service import TuningService
from prompts_store.blobs.files import Files
from prompts_store.jobs.records import OVER, Job
from prompts_store.store import PromptStore
from tests.server.tuning.tuning_tools import LABELS, VOCABULARY, letters_task, model

FINGERPRINT = "a" * 64
TENANT = "acme"
RECIPE: dict[str, Any] = {
    "steps": 6, "batch_size": 8, "micro_batch_size": 4, "prompt_length": 5, "dropout_rate": 0.1,
    "max_input_tokens": 24, "max_target_tokens": 6, "evaluate_every_steps": 3, "checkpoint_every_steps": 2,
    "sampled_pieces": 40,
}  # fmt: skip


def base(**changes: Any) -> TuningBase:
    """The tiny model; its vocabulary is single letters."""
    tiny = model()
    embedding = np.asarray(tiny.params["embedding"], np.float32)
    made = TuningBase(
        functions=tiny.functions,
        params=tiny.params,
        vocabulary=VOCABULARY,  # type: ignore[arg-type]
        fingerprint=FINGERPRINT,
        embeddings=lambda: embedding,
        memory_room=1 << 30,
        max_prompt_rows=32,
        max_label_tokens=8,
    )
    return replace(made, **changes)


def config(folder: Path, **changes: Any) -> ServiceConfig:
    made = ServiceConfig(folder=folder / "tuning", owner="test", poll_seconds=0.05, lease_seconds=20.0)
    return replace(made, **changes)


def jsonl(count: int = 40, seed: int = 1) -> str:
    """Rows of the letters task; so long that jobs have the shapes of `tuning_tools.programs`: compiled once
    for both."""
    rows = letters_task(count, seed)
    return "".join(json.dumps({"text": 4 * row.text, "label": row.answers[0]}) + "\n" for row in rows)


def upload(store: PromptStore, text: str | bytes, name: str = "train.jsonl", tenant: str = TENANT) -> str:
    """The id of an uploaded file."""
    content = text if isinstance(text, bytes) else text.encode()
    with store.write_file(tenant, name, max_bytes=1 << 20) as writer:
        writer.write(content)
        return writer.commit().id


def document(file_id: str, **changes: Any) -> dict[str, Any]:
    """A job document; `recipe` changes go over RECIPE."""
    recipe = {**RECIPE, **changes.pop("recipe", {})}
    data = changes.pop("data", {"train": {"file": file_id}, "validation_rows": 10})
    return {"task": "letters", "data": data, "labels": list(LABELS), "recipe": recipe, "seed": 3} | changes


def submit(store: PromptStore, sent: Mapping[str, Any], tenant: str = TENANT) -> Job:
    """Make a job, as the route does."""
    asked = JobDocument.read(sent)
    files = {field: value for field, kind, value in asked.sources if kind == "file"}
    job = asked.completed().for_base(FINGERPRINT)
    return store.create_job(tenant, "tuning", job.to_json(), files=files, training_steps=job.training_steps)


def attempt(
    store: PromptStore, folder: Path, *, interrupt: Callable[[], None] | None = None, **changes: Any
) -> Attempt:
    """One at a job that was just made; `interrupt` stands in for its own."""
    store.create_job(TENANT, "tuning", {"base_fingerprint": FINGERPRINT})
    claimed = store.claim_job("tuning", "test", 20.0, FINGERPRINT)
    assert claimed is not None
    held = LeasedJob(store, *claimed, 20.0, 30.0, threading.Event())
    made = Attempt(
        held,
        base(),
        config(folder, **changes),
        DeviceWork(),
        Watcher(),
        lambda cause: nullcontext(),
        lambda: True,
        Files(),
    )
    if interrupt is not None:
        made.interrupt = interrupt  # type: ignore[method-assign]
    return made


class Watcher(TuningMetrics):
    """What a service counts, for a test to read.

    Args:
        hold_after: the device's thread waits after so many slices until `release` is set.
    """

    def __init__(self, hold_after: int | None = None) -> None:
        self.registry = MetricsRegistry()
        super().__init__(self.registry, CompileMetrics(self.registry))
        self.hold_after = hold_after
        self.reached = threading.Event()
        self.release = threading.Event()
        self.endings: list[str] = []
        self.slices = 0
        self.after(self.runs_ended, lambda count, ending: self.endings.append(ending))
        self.after(self.slice_seconds, lambda seconds: self.sliced())

    @property
    def made(self) -> int:
        """Optimiser steps so far."""
        return int(self.registry.get_sample_value("chorus_tuning_steps_total") or 0)

    @property
    def saved(self) -> int:
        """Checkpoints written so far."""
        return int(self.registry.get_sample_value("chorus_tuning_checkpoints_total") or 0)

    def sliced(self) -> None:
        """A slice ended, on the device's thread."""
        self.slices += 1
        if self.slices == self.hold_after:
            self.reached.set()
            assert self.release.wait(300), "the test never let the device go on"

    @staticmethod
    def after(series: Counter | Histogram, then: Callable[..., object]) -> None:
        """Call `then` with what was counted, once it was."""
        name = "inc" if isinstance(series, Counter) else "observe"
        count = getattr(series, name)

        def counted(*told: Any) -> None:
            count(*told)
            then(*told)

        setattr(series, name, counted)


@contextmanager
def running(
    store: PromptStore,
    folder: Path,
    *,
    of_base: TuningBase | None = None,
    files: Files | None = None,
    watcher: Watcher | None = None,
    **changes: Any,
) -> Iterator[TuningService]:
    """A started service that owns the device; stopped afterwards."""
    service = TuningService(
        store, of_base or base(), config(folder, **changes), metrics=watcher or Watcher(), files=files
    )
    device = SliceThread(service.work)
    device.start()
    service.start()
    try:
        yield service
    finally:
        service.stop(300)
        device.stop(300)


def let_go_once_stopped(service: TuningService, watcher: Watcher) -> None:
    """Release a held device as soon as the runner has given up its work."""
    pause = threading.Event()
    for _ in range(15_000):
        if not service.work.wants_slice():
            break
        pause.wait(0.02)
    watcher.release.set()


def finished(store: PromptStore, job: Job, seconds: float = 1200) -> Job:
    """The job once it is over. Looks at the store until it is."""
    return until(store, job, lambda found: found.status in OVER, seconds)


def until(store: PromptStore, job: Job, what: Any, seconds: float = 1200) -> Job:
    """The job once this holds of it."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while True:
        found = store.get_job(job.tenant, job.id)
        if what(found):
            return found
        assert time.monotonic() < deadline, f"{found.status} {found.progress} {found.error}"
        pause.wait(0.02)


def events(store: PromptStore, job: Job) -> list[tuple[str, Mapping[str, Any]]]:
    return [(event.kind, event.data) for event in store.job_events(job.tenant, job.id)]


def done(store: PromptStore, folder: Path, sent: Mapping[str, Any], **changes: Any) -> Job:
    """Run one job to its end."""
    job = submit(store, sent)
    with running(store, folder, **changes):
        return finished(store, job)
