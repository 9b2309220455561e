"""A job whose dispatch would never end is refused before it is made: the watchdog must not end the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.settings import Settings
from chorus_server.tuning.jobs.stages import durations
from chorus_server.tuning.jobs.stages.durations import check_durations, operations
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning_wiring import longest_dispatch
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import Watcher, document, done, jsonl, upload
from tests.server.tuning.tuning_tools import programs, task

pytestmark = pytest.mark.usefixtures("compile_cache")
SPEED_SLICES = 4


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program is looked at."""
    monkeypatch.setattr(durations, "SLOWEST", {"cpu": 0.0})


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("recipe", [{}, {"micro_batch_size": None}])
def test_a_dispatch_that_takes_too_long_is_never_made(tmp_path: Path, recipe: dict[str, Any]) -> None:
    store, watcher = PromptStore.open(tmp_path), Watcher()
    sent = document(upload(store, jsonl()), recipe=recipe)
    job = done(store, tmp_path, sent, watcher=watcher, longest_seconds=1e-7)
    assert job.status == "failed" and job.error is not None
    assert job.error["code"] == "dispatch_too_long" and "fewer prompts" in job.error["message"]
    assert watcher.slices == SPEED_SLICES, "nothing but the small one was run"


@pytest.mark.usefixtures("slow")
def test_a_job_that_ends_in_time_is_run(tmp_path: Path) -> None:
    store = PromptStore.open(tmp_path)
    job = done(store, tmp_path, document(upload(store, jsonl())), longest_seconds=3600.0)
    assert job.status == "succeeded", job.error


def test_what_takes_long_is_foretold_by_its_operations() -> None:
    made = programs(TrainingRun(3, (task(0), task(1))))
    most = max(operations(each) for each in (*made.accumulate.values(), *made.score.values()))
    asked: list[float] = []

    def speed(found: float) -> float:
        asked.append(found)
        return found

    check_durations(made, most / 5e9, lambda: speed(0.0), "f")
    assert not asked, "what the slowest device ends in time costs no measurement"
    check_durations(made, 1e-6, lambda: speed(1.01e6 * most), "f")
    with pytest.raises(InvalidInputError, match="about 2 seconds"):
        check_durations(made, 1e-6, lambda: speed(most / 2), "f")
    free = programs(TrainingRun(3, (task(0, free_text=True, metrics=("exact_match",)),)))
    (greedy,) = free.greedy.values()
    with pytest.raises(InvalidInputError):
        check_durations(free, 1e-6, lambda: operations(greedy) * 1.5e6, "f")


def test_half_of_what_the_watchdog_waits() -> None:
    assert longest_dispatch(Settings(model="x", step_timeout_seconds=90)) == 45
    assert longest_dispatch(Settings(model="x", step_timeout_seconds=0)) is None
