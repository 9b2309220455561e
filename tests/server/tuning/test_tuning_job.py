"""Jobs are checked whole before anything compiles; their shapes hold all of their data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tuning_tools import RECIPE, task

from server.errors import InvalidInputError
from server.tuning.job import SHARED, Job, PromptTask
from server.tuning.shapes import shapes_for


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"train": ()}, "tasks.1.train"),
        ({"initial": np.zeros((4, 26), np.float32)}, "tasks.1.initial"),
        ({"initial": np.full((5, 26), np.nan, np.float32)}, "tasks.1.initial"),
        ({"label_ids": ()}, "tasks.1.label_ids"),
        ({"metrics": ("bleu",)}, "metrics"),
        ({"index": 0}, "tasks"),
        *(({"recipe": replace(RECIPE, **{name: value})}, f"tasks.1.recipe.{name}") for name, value in (
            ("steps", 7), ("batch_size", 4), ("micro_batch_size", 2), ("z_loss", 0.0), ("dropout_rate", 0.0),
            ("evaluate_every_steps", 4), ("checkpoint_every_steps", 4), ("prompt_length", 6),
        )),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field(change: dict[str, Any], field: str) -> None:
    second: PromptTask = replace(task(1), **change)
    with pytest.raises(InvalidInputError) as refused:
        Job(3, (task(0), second))
    assert refused.value.field == field


def test_what_is_not_shared_may_differ() -> None:
    assert "learning_rate" not in SHARED
    other = replace(RECIPE, learning_rate=0.1, early_stopping_evaluations=3, weight_decay=0.0)
    assert Job(3, (task(0), replace(task(1), recipe=other))).recipe == RECIPE
    with pytest.raises(InvalidInputError):
        Job(3, ())
    for seed in (-1, 2**63):
        with pytest.raises(InvalidInputError, match="seed must be"):
            Job(seed, (task(0),))


def test_shapes_hold_everything_and_have_few_rungs() -> None:
    job = Job(3, (task(0), task(1, free_text=True)))
    shapes = shapes_for(job, rungs=2)
    P = RECIPE.prompt_length
    longest = max(len(example.input_ids) for each in job.tasks for example in (*each.train, *each.selection))
    assert shapes.input_lengths[-1] >= P + longest
    assert 1 <= len(shapes.input_lengths) <= 2
    assert shapes.input_length(1) == shapes.input_lengths[0]
    assert (shapes.rows, shapes.evaluation_rows) == (8, 8)
    assert (shapes.labels, shapes.new_tokens) == (2, RECIPE.max_target_tokens)
    with pytest.raises(InvalidInputError):
        shapes_for(job, rungs=0)
