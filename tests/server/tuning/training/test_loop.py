"""The loop end to end on a tiny random model: it learns, it stops, it can be put down and taken up
anywhere."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from chorus_server.tuning.training import checkpoint
from chorus_server.tuning.training.evaluation import Evaluator
from chorus_server.tuning.training.events import (
    Evaluated,
    PromptStopped,
    StepFinished,
    TrainingEvent,
)
from chorus_server.tuning.training.loop import TuningLoop
from chorus_server.tuning.training.run import TrainingRun
from chorus_server.tuning.training.shapes import shapes_for
from chorus_server.tuning.training.state import TrainingState
from tests.server.tuning.tuning_tools import RECIPE, VOCABULARY, programs, task


def _run(loop: TuningLoop, slice_size: int = 3) -> list[TrainingEvent]:
    events: list[TrainingEvent] = []
    for _ in range(10_000):
        if loop.done:
            return events
        events += loop.run_slice(slice_size)
    raise AssertionError("the loop does not end")


def _loop(job: TrainingRun, folder: Path | None = None, state: TrainingState | None = None) -> TuningLoop:
    save = None if folder is None else (lambda state: checkpoint.write_state(folder, job, state))
    return TuningLoop(job, programs(job), VOCABULARY.decode, state, save)


def _same(one: TrainingState, other: TrainingState) -> None:
    for name in ("prompts", "second_moment", "best"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    np.testing.assert_array_equal(np.array(one.losses), np.array(other.losses))
    assert one.standings == other.standings
    assert (one.step, one.evaluated_step) == (other.step, other.evaluated_step)


def test_a_prompt_learns_a_task() -> None:
    recipe = RECIPE.changed(steps=40, evaluate_every_steps=10, checkpoint_every_steps=1000)
    job = TrainingRun(3, (task(0, recipe, train_rows=120, held_out_rows=60),))
    loop = _loop(job)
    untuned: list[dict[str, float] | None] = []
    evaluator = Evaluator(job, programs(job), VOCABULARY.decode)
    list(evaluator.measure(loop.state.prompts, [job.tasks[0].validation], untuned))
    events = _run(loop, 50)
    losses = [event.losses[0] or 0.0 for event in events if isinstance(event, StepFinished)]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3])
    measured = [event.metrics["accuracy"] for event in events if isinstance(event, Evaluated)]
    majority = 0.5
    assert untuned[0] is not None and untuned[0]["accuracy"] < majority + 0.15
    assert max(measured) > majority + 0.3
    assert loop.state.standings[0].best_metric == max(measured)
    assert loop.state.standings[0].best_step == 10 * (1 + measured.index(max(measured)))


def test_events_come_in_order_and_slices_are_bounded() -> None:
    job = TrainingRun(3, (replace(task(), test=task(4).validation),))
    loop = _loop(job)
    kinds: list[str] = []
    for _ in range(200):
        if loop.done:
            break
        events = loop.run_slice(1)
        assert sum(isinstance(event, StepFinished) for event in events) <= 1
        kinds += [type(event).__name__ for event in events]
    step = ["StepFinished"] * 3
    assert kinds == [*step, "Evaluated", *step, "Evaluated", "Evaluated"]
    assert [each["split"] for each in loop.state.standings[0].evaluations] == [
        "validation",
        "validation",
        "test",
    ]


def test_work_is_dispatches() -> None:
    """6 steps of 2 micro-batches, and twice 12 rows of evaluation in dispatches of 4; one call more ends
    it."""
    loop = _loop(TrainingRun(3, (task(),)))
    loop.run_slice(6 * 2 + 2 * 3)
    assert not loop.done
    loop.run_slice(1)
    assert loop.done
    assert [standing.status for standing in loop.state.standings] == ["finished"]


def test_the_metrics_of_one_prompt_are_a_slice() -> None:
    """What is worked out on the host of a large split holds up requests as a dispatch does."""
    job = TrainingRun(3, (task(0), task(1)))
    found: list[dict[str, float] | None] = []
    evaluator = Evaluator(job, programs(job), VOCABULARY.decode)
    state, seen = TrainingState.start(job), []
    for _ in evaluator.measure(state.prompts, [each.validation for each in job.tasks], found):
        seen.append(len(found))
    rows = programs(job).shapes.evaluation_rows
    assert seen == [0] * (2 * 12 // rows) + [1] and len(found) == 2


def test_a_loop_put_down_anywhere_ends_with_the_same_bits(tmp_path: Path) -> None:
    job = TrainingRun(3, (task(0), task(1)))
    whole = _loop(job)
    _run(whole)
    chance = random.Random(5)
    resumed = 0
    loop = _loop(job, tmp_path)
    while not loop.done:
        loop.run_slice(chance.randint(3, 8))
        if not loop.done and chance.random() < 0.8:
            state = checkpoint.read_state(tmp_path, job)
            resumed += state is not None
            loop = _loop(job, tmp_path, state)
    assert resumed >= 3
    _same(whole.state, loop.state)
    final = checkpoint.read_state(tmp_path, job)
    assert final is not None
    _same(whole.state, final)
    # The control: another seed gives other bits.
    other = _loop(replace(job, seed=4))
    _run(other)
    assert not np.array_equal(other.state.prompts, whole.state.prompts)


def test_a_cancelled_job_is_saved_between_steps(tmp_path: Path) -> None:
    job = TrainingRun(3, (task(),))
    whole = _loop(job)
    _run(whole)
    loop = _loop(job, tmp_path)
    loop.run_slice(3)
    loop.save()
    state = checkpoint.read_state(tmp_path, job)
    assert state is not None and state.step == 1
    taken_up = _loop(job, tmp_path, state)
    _run(taken_up)
    _same(whole.state, taken_up.state)


def test_a_loss_that_is_no_number_stops_that_prompt_alone_and_keeps_its_values() -> None:
    good = task(0)
    bad = replace(task(1), initial=np.full_like(good.initial, 3e38))
    loop = _loop(TrainingRun(3, (good, bad)))
    events = _run(loop)
    stopped = [event for event in events if isinstance(event, PromptStopped)]
    assert [(event.prompt, event.status, event.step) for event in stopped] == [(1, "diverged", 1)]
    assert "learning_rate" in stopped[0].message
    np.testing.assert_array_equal(loop.state.prompts[1], bad.initial)
    assert [standing.status for standing in loop.state.standings] == ["finished", "diverged"]
    assert loop.state.standings[1].best_step is None
    first = next(event for event in events if isinstance(event, StepFinished))
    assert first.losses[0] is not None
    alone = _loop(TrainingRun(3, (good, task(1))))
    _run(alone)
    np.testing.assert_allclose(loop.state.prompts[0], alone.state.prompts[0], rtol=1e-4, atol=1e-4)


def test_early_stopping_stops_one_prompt_and_not_the_other() -> None:
    recipe = RECIPE.changed(steps=8, evaluate_every_steps=2)
    patient = task(0, recipe)
    # Accuracy cannot become better than a first evaluation of 1 or stay at 0: nothing here matches the
    # answer.
    hopeless = replace(
        task(1, recipe.changed(early_stopping_evaluations=2)),
        validation=tuple(replace(example, answers=("never",)) for example in task(1).validation),
    )
    loop = _loop(TrainingRun(3, (patient, hopeless)))
    events = _run(loop)
    stopped = [event for event in events if isinstance(event, PromptStopped)]
    assert [(event.prompt, event.status, event.step) for event in stopped] == [(1, "stopped_early", 6)]
    assert loop.state.standings[1].best_step == 2
    assert loop.state.step == 8
    assert len(loop.state.losses) == 8


def test_free_text_is_measured_by_greedy_decoding() -> None:
    loop = _loop(TrainingRun(3, (task(free_text=True, metrics=("exact_match", "squad_f1")),)))
    events = _run(loop)
    measured = [event.metrics for event in events if isinstance(event, Evaluated)]
    assert [set(each) for each in measured] == [{"exact_match", "squad_f1", "mean"}] * 2


def test_a_full_disk_fails_the_loop_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    job = TrainingRun(3, (task(),))
    written = 0

    def save(state: TrainingState) -> None:
        nonlocal written
        if written == 1:
            raise OSError(28, "No space left on device")
        checkpoint.write_state(tmp_path, job, state)
        written += 1

    loop = TuningLoop(job, programs(job), VOCABULARY.decode, None, save)
    with pytest.raises(OSError, match="No space"):
        _run(loop)
    assert not loop.done
    with pytest.raises(RuntimeError, match="new one"):
        loop.run_slice(1)
    kept = checkpoint.read_state(tmp_path, job)
    assert kept is not None and kept.step == 2


def test_dispatches_of_any_rows_make_the_same_steps(tmp_path: Path) -> None:
    """Fewer rows for long inputs change a step by rounding only, and a loop that is taken up by nothing."""
    long = [replace(each, input_ids=each.input_ids * 6) for each in task().train[::3]]
    job = TrainingRun(3, (replace(task(), train=(*task().train, *long)),))
    shapes = shapes_for(job, dispatch_tokens=40)
    assert shapes.rows_by_length[0] > shapes.rows_by_length[-1] and len(shapes.input_lengths) > 1
    cut, whole = programs(job, shapes=shapes), programs(job, shapes=shapes_for(job, rungs=1))
    one, other = (TuningLoop(job, made, VOCABULARY.decode) for made in (cut, whole))
    steps = [[e.losses for e in _run(loop) if isinstance(e, StepFinished)] for loop in (one, other)]
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-4)
    np.testing.assert_allclose(one.state.prompts, other.state.prompts, rtol=2e-4, atol=2e-4)
    write = partial(checkpoint.write_state, tmp_path, job)
    first = TuningLoop(job, cut, VOCABULARY.decode, save=write)
    while first.state.step < 4:
        first.run_slice(1)
    _run(taken_up := TuningLoop(job, cut, VOCABULARY.decode, checkpoint.read_state(tmp_path, job)))
    _same(taken_up.state, one.state)
