"""Jobs are checked whole before anything compiles; their shapes hold all of their data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.examples import Example
from chorus_server.tuning.training import shapes as shapes_module
from chorus_server.tuning.training.packing import dispatches
from chorus_server.tuning.training.run import SHARED, PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import dealt, shapes_for
from tests.server.tuning.tuning_tools import RECIPE, task


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"train": ()}, "tasks.1.train"),
        ({"initial": np.zeros((4, 26), np.float32)}, "tasks.1.initial"),
        ({"initial": np.full((5, 26), np.nan, np.float32)}, "tasks.1.initial"),
        ({"label_ids": ()}, "tasks.1.label_ids"),
        ({"metrics": ("bleu",)}, "metrics"),
        ({"index": 0}, "tasks"),
        *(({"recipe": RECIPE.changed(**{name: value})}, f"tasks.1.recipe.{name}") for name, value in (
            ("steps", 7), ("batch_size", 4), ("micro_batch_size", 2), ("z_loss", 0.0), ("dropout_rate", 0.0),
            ("evaluate_every_steps", 4), ("checkpoint_every_steps", 4), ("prompt_length", 6),
        )),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(change: dict[str, Any], field: str) -> None:
    second: PromptTask = replace(task(1), **change)
    with pytest.raises(InvalidInputError) as refused:
        TrainingRun(3, (task(0), second))
    assert refused.value.field == field


def test_what_is_not_shared_may_differ() -> None:
    assert "learning_rate" not in SHARED
    other = RECIPE.changed(learning_rate=0.1, early_stopping_evaluations=3, weight_decay=0.0)
    assert TrainingRun(3, (task(0), replace(task(1), recipe=other))).recipe == RECIPE
    with pytest.raises(InvalidInputError):
        TrainingRun(3, ())
    for seed in (-1, 2**63):
        with pytest.raises(InvalidInputError, match="seed must be"):
            TrainingRun(seed, (task(0),))


def test_shapes_hold_everything_and_have_few_rungs() -> None:
    job = TrainingRun(3, (task(0), task(1, free_text=True)))
    shapes = shapes_for(job, rungs=2)
    P = RECIPE.prompt_length
    longest = max(len(example.input_ids) for each in job.tasks for example in (*each.train, *each.validation))
    assert shapes.input_lengths[-1] >= P + longest
    assert 1 <= len(shapes.input_lengths) <= 2
    assert shapes.input_length(1) == shapes.input_lengths[0]
    assert (shapes.prompts * shapes.rows_per_prompt, shapes.evaluation_rows) == (8, 8)
    assert (shapes.labels, shapes.new_tokens) == (2, RECIPE.max_target_tokens)
    with pytest.raises(InvalidInputError):
        shapes_for(job, rungs=0)


def _of_lengths(*lengths: int) -> TrainingRun:
    """A job whose train split has inputs of these lengths, in this order."""
    train = [Example(n, (5,) * length, (7, 1), ("y",)) for n, length in enumerate(lengths)]
    return TrainingRun(3, (replace(task(), train=train, validation=()),))


def test_a_rung_is_there_where_it_saves_more_than_its_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    P = RECIPE.prompt_length
    even = _of_lengths(*[32 - P] * 10, *[40 - P] * 10, *[104 - P] * 10)
    assert shapes_for(even).input_lengths == (40, 104), "32 beside 40 saves little"
    assert shapes_for(even, rungs=1).input_lengths == (104,)
    # Few long inputs do not lengthen the many: an even split of the inputs would have ended at 104 and 96.
    many = _of_lengths(*[24 - P] * 60, *[96 - P] * 30, *[104 - P] * 30, *[400 - P])
    assert shapes_for(many).input_lengths == (24, 104, 400)
    assert shapes_for(_of_lengths(3, 3)).input_lengths == (8,)
    longest = 2000
    every = _of_lengths(*range(1, longest))
    tried: list[Any] = []
    tokens = shapes_module._tokens
    monkeypatch.setattr(
        shapes_module, "_tokens", lambda inputs, rungs: tried.append(rungs) or tokens(inputs, rungs)
    )
    first, last = shapes_for(every).input_lengths
    assert last == RECIPE.prompt_length + longest + 3 and abs(first - last / 2) < 100
    assert len(tried) < 300, "requests are served meanwhile: of 251 lengths not all pairs are tried"


def test_short_inputs_share_a_dispatch_and_long_ones_take_no_longer() -> None:
    P = RECIPE.prompt_length
    job = _of_lengths(*sorted([3] * 9 + [30] * 2 + [33, 90, 95, 99, 99]))
    shapes = shapes_for(job, dispatch_tokens=190)
    assert shapes.input_lengths == (8, 40, 104) and shapes.rows_by_length == (4, 4, 1)
    found = dispatches(shapes, job, [range(16)])
    assert [index for _, (some,) in found for index in some] == list(range(16)), "each once, in order"
    assert [(length, len(some)) for length, (some,) in found] == [(8, 4), (8, 4), (40, 4), *[(104, 1)] * 4]
    for length, (some,) in found:
        assert all(P + len(job.tasks[0].train[index].input_ids) <= length for index in some)
        assert len(some) == shapes.rows_at(length) and len(some) * length <= 190
    # Without a limit of tokens every dispatch is a micro-batch, however long.
    every = dispatches(shapes_for(job), job, [range(16)])
    assert [len(some) for _, (some,) in every] == [4] * 4
    # Two prompts share a dispatch: it is as long as the longest of either.
    both = TrainingRun(3, (job.tasks[0], replace(job.tasks[0], index=1, train=job.tasks[0].train[-1:] * 16)))
    shared = shapes_for(both, dispatch_tokens=190)
    assert {length for length, _ in dispatches(shared, both, [range(16), range(16)])} == {104}


def test_with_one_rung_the_dispatches_of_a_step_have_about_as_many_tokens() -> None:
    P = RECIPE.prompt_length
    lengths = [3, 4, 5, 6, 20, 21, 22, 23, 24, 25, 26, 27, 28, 28, 29, 30]
    order = dealt(lengths, 4)
    parts = [order[start : start + 4] for start in range(0, 16, 4)]
    assert sorted(order) == lengths and {len(part) for part in parts} == {4}
    assert max(map(sum, parts)) - min(map(sum, parts)) <= 3
    in_order = [lengths[start : start + 4] for start in range(0, 16, 4)]
    assert max(map(sum, in_order)) - min(map(sum, in_order)) > 90, "the control: sorted, they differ"
    shapes = shapes_for(_of_lengths(*lengths), rungs=1)
    (length,), (tokens,) = shapes.input_lengths, shapes.tokens_by_length
    assert tokens < 4 * (P + 29), "less than four of the longest"
    assert length >= P + 30
