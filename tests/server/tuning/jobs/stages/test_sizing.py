"""How large a dispatch may be: the search, on given times; and the real thing, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.jobs.slices import DeviceWork, SliceThread
from chorus_server.tuning.jobs.stages.sizing import Sizer, Sizes
from chorus_server.tuning.training.programs import TuningPrograms
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import TrainingShapes
from prompts_store.store import PromptStore
from tests.server.tuning.jobs.service_tools import (
    TENANT,
    base,
    document,
    events,
    finished,
    jsonl,
    running,
    submit,
    upload,
)
from tests.server.tuning.tuning_tools import RECIPE, task


class Timed(Sizer):
    """Dispatches that take what a function says."""

    def __init__(
        self,
        batch_size: int,
        limit: float,
        seconds: Callable[[int], float],
        steps: int = 1_000_000,
        groups: int = 1,
    ) -> None:
        nothing, shared = (
            cast(Any, None),
            cast(Any, SimpleNamespace(functions=SimpleNamespace(groups=groups, devices=groups))),
        )
        job = TrainingRun(3, (task(0, RECIPE.changed(steps=steps)),))
        super().__init__(
            shared, lambda size: job, batch_size, DeviceWork(), limit, None, nothing, lambda: None
        )
        self.seconds = seconds
        self.tried: list[int] = []

    def _training_seconds(self, size: int) -> float:
        self.tried.append(size)
        return self.seconds(size)


@pytest.mark.parametrize(
    ("batch", "seconds", "size"),
    [
        (32, lambda n: 0.005 * n, 8),
        (32, lambda n: 0.02 + 0.002 * n, 16),
        (32, lambda n: 0.001, 32),
        (32, lambda n: 0.5 * n, 1),
        (12, lambda n: 0.001, 4),
        (7, lambda n: 0.001, 1),
        (32, lambda n: 0.001 if n < 4 else float("inf"), 2),
        (32, lambda n: 0.001 * n * n, 4),
    ],
)
def test_the_largest_power_of_two_that_is_short_enough(
    batch: int, seconds: Callable[[int], float], size: int
) -> None:
    sizer = Timed(batch, 0.06, seconds)
    found, took = sizer._search()
    assert found == size and took == seconds(size)
    assert len(sizer.tried) <= 6, "each try is a compile"
    larger = 2 * size
    assert larger not in sizer.tried or seconds(larger) > 0.06


@pytest.mark.parametrize(
    ("each", "tried"),
    [
        (0.032, [1]),  # two would take too long, or a compile to save a little
        (0.008, [1]),
        (0.007, [1, 8]),  # one fills too little of a slice
        (0.004, [1, 8]),  # 16 may take as little as 1.6 times as long, which is not tried
        (0.5, [1]),
    ],
)
def test_a_short_job_compiles_no_candidate_that_is_not_worth_it(each: float, tried: list[int]) -> None:
    sizer = Timed(32, 0.06, lambda n: each * n, steps=3)
    assert sizer._search() == (tried[-1], each * tried[-1])
    assert sizer.tried == tried


@pytest.mark.parametrize(
    ("batch", "groups", "size", "tried"),
    [
        (32, 4, 32, [4, 32]),  # each group has a row of 0.005 s, and then eight
        (32, 3, 16, [4, 16]),  # of four rows one group has two
        (6, 4, 2, [2]),  # no candidate gives each group a row
    ],
)
def test_the_search_begins_with_a_row_for_each_group(
    batch: int, groups: int, size: int, tried: list[int]
) -> None:
    sizer = Timed(batch, 0.04, lambda n: 0.005 * -(-n // groups), groups=groups)
    assert sizer._search()[0] == size
    assert sizer.tried == tried


@pytest.mark.parametrize(("steps", "tried"), [(58, [1]), (59, [1, 2])])
def test_a_job_is_short_by_what_it_trains(steps: int, tried: list[int]) -> None:
    """At most 30 s: 58 steps of 16 examples of 32 ms, one by one."""
    sizer = Timed(16, 0.08, lambda n: 0.032 * n, steps=steps)
    sizer._search()
    assert sizer.tried == tried


class Fitting(Timed):
    """On a device with room for so many tokens in a group's part of a dispatch."""

    def __init__(self, groups: int, room: int) -> None:
        super().__init__(32, 0.06, lambda n: 0.0, groups=groups)
        plain = task(0, RECIPE.changed(batch_size=32, micro_batch_size=32))
        ids = [(3, 5, 1)] * 30 + [(*range(3, 30), 1)] * 30
        rows = tuple(replace(plain.train[0], input_ids=each) for each in ids)
        self.job = lambda size: TrainingRun(3, (replace(plain, train=rows),))
        self.room = room
        self.shapes: list[TrainingShapes] = []

    def _compile(self, job: TrainingRun, shapes: TrainingShapes, **how: bool) -> TuningPrograms:
        self.shapes.append(shapes)
        if max(shapes.tokens_by_length) > self.room:
            raise InvalidInputError("it does not fit", field="memory_plan", code="memory_plan")
        return cast(Any, None)


def test_on_other_devices_each_device_has_as_much_to_do_as_each_had() -> None:
    """A job that four devices began and one goes on with, and the other way round."""
    four, one = Fitting(4, 10_000), Fitting(1, 10_000)
    begun = Sizes(32, 64, 1024, devices=4)
    assert four.settle(None, begun)[2] == begun, "control: as many devices as then"
    run, _, found, _ = one.settle(None, begun)
    assert found == Sizes(32, 16, 256, devices=1)
    ours, theirs = one.shapes[-1], four.shapes[-1]
    assert ours.input_lengths == theirs.input_lengths and ours.rows_by_length[-1] == theirs.rows_by_length[-1]
    assert all(
        rows * length <= 256 for rows, length in zip(ours.rows_by_length, ours.input_lengths, strict=True)
    )
    assert run.digest == four.settle(None, begun)[0].digest, "its checkpoint would not be of this job"
    assert four.settle(None, found)[2] == begun
    assert one.settle(32, begun)[2] == Sizes(32, 64, 1024, devices=1), "a recipe's own is kept"


def test_on_fewer_devices_a_dispatch_shrinks_until_it_fits() -> None:
    begun = Sizes(32, 64, None, devices=4)
    roomy, tight, none = Fitting(1, 10_000), Fitting(1, 50), Fitting(1, 10)
    _, _, all_fit, _ = roomy.settle(None, begun)
    assert max(roomy.shapes[-1].rows_by_length) == 8 and len(roomy.shapes) == 1
    _, _, found, _ = tight.settle(None, begun)
    assert found.micro_batch_size == all_fit.micro_batch_size == 32
    assert 1 <= max(tight.shapes[-1].rows_by_length) < 8 and len(tight.shapes) > 1
    with pytest.raises(InvalidInputError):
        none.settle(None, begun)
    assert set(none.shapes[-1].rows_by_length) == {1} and none.shapes[-1].evaluation_rows == 1


@pytest.mark.parametrize(("limit", "warns"), [(60.0, False), (1e-9, True)])
def test_sizes_are_measured_recorded_and_kept(
    tmp_path: Path, compile_cache: Path, limit: float, warns: bool
) -> None:
    store = PromptStore.open(tmp_path)
    sent = document(upload(store, jsonl()), recipe={"micro_batch_size": None})
    job = submit(store, sent)
    with running(store, tmp_path, of_base=base(), slice_seconds=limit):
        over = finished(store, job)
    assert over.status == "succeeded", over.error
    sizes = over.progress["settled"]["sizes"]
    assert sizes["micro_batch_size"] == (1 if warns else 8)
    lineage = store.resolve("letters", tenant=TENANT).lineage
    assert lineage["recipe"]["micro_batch_size"] == sizes["micro_batch_size"]
    said = [data["message"] for kind, data in events(store, over) if kind == "warning"]
    assert any("tuning_slice_ms" in message for message in said) is warns
    programs = [data["name"] for kind, data in events(store, over) if kind == "program"]
    scored = [name for name in programs if name.startswith("score")]
    assert len(set(scored)) == len(scored) > 0, "sizing compiles nothing to score labels"
    if warns:  # one example is what was measured: it is what runs, too
        assert len(set(programs)) == len(programs)


def test_time_that_other_processes_take_does_not_count() -> None:
    sizer, away = Timed(8, 0.06, lambda n: 0.0), threading.Event()
    device = SliceThread(sizer.turns)
    device.start()

    def spin(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    try:
        # Waiting for a core is like waiting for anything else: time passes, and no work is done.
        assert sizer._measure(lambda: away.wait(0.05) and None) < 0.05
        assert sizer._measure(lambda: spin(0.02)) >= 0.02, "the control: work counts"
    finally:
        device.stop(10)


def test_what_was_settled_is_used_again() -> None:
    """A run that takes a job up makes the dispatches of the first one, whatever the clock says by now."""
    sizes = Sizes(4, 2, 96)
    made: list[dict[str, Any]] = []

    class Kept(Timed):
        def _settled(self, size: int, rows: int | None, tokens: int | None, warnings: list[str]) -> Any:
            found = {"micro_batch_size": size, "evaluation_rows": rows, "dispatch_tokens": tokens}
            made.append({**found, "devices": 1})

    Kept(32, 0.06, lambda n: 0.001).settle(None, Sizes(**asdict(sizes)))
    Kept(32, 0.06, lambda n: 0.001).settle(8, None)
    assert made == [asdict(sizes), {**asdict(Sizes(8, 0)), "evaluation_rows": None}]


def test_what_succeeded_jobs_left_is_swept(tmp_path: Path, compile_cache: Path) -> None:
    store = PromptStore.open(tmp_path)
    job = submit(store, document(upload(store, jsonl())))
    with running(store, tmp_path):
        finished(store, job)
    left = tmp_path / "tuning" / TENANT / job.id / "run-00000001"
    left.mkdir(parents=True)
    other = submit(store, document(upload(store, jsonl()), task="other"))
    kept = tmp_path / "tuning" / TENANT / other.id
    kept.mkdir()
    store.cancel_job(TENANT, other.id)
    with running(store, tmp_path):
        last = submit(store, document(upload(store, jsonl()), task="last"))
        finished(store, last)
    assert not left.exists() and kept.exists()
