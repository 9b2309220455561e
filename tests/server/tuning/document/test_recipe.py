"""The recipe: the paper's defaults, refusals that name the field, and JSON there and back."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.recipe import Initialiser, Recipe


def test_defaults_are_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.learning_rate, recipe.steps, recipe.batch_size) == (0.3, 30_000, 32)
    assert (recipe.prompt_length, recipe.initialiser, recipe.sampled_pieces) == (100, "class_labels", 5_000)
    assert (recipe.weight_decay, recipe.second_moment_decay, recipe.clip_rms) == (1e-5, 0.8, 1.0)
    assert not recipe.parameter_scaling
    assert (recipe.warmup_steps, recipe.decay_factor, recipe.steps_per_decay) == (0, 1.0, 0)
    assert recipe.micro_batch_size is None
    assert recipe.changed(micro_batch_size=8).micro_batch_size == 8


def test_json_there_and_back() -> None:
    decay: dict[str, Any] = {"decay_factor": 0.5, "steps_per_decay": 5}
    recipe = Recipe(learning_rate=0.1, initialiser="text", initialiser_text="répondre", **decay)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert Recipe.from_json({}) == Recipe()
    assert Recipe.from_json({"learning_rate": 1}).learning_rate == 1


@pytest.mark.parametrize(
    ("field", "document"),
    [
        ("recipe.leraning_rate", {"leraning_rate": 0.3}),
        ("recipe.learning_rate", {"learning_rate": 0}),
        ("recipe.learning_rate", {"learning_rate": "fast"}),
        ("recipe.learning_rate", {"learning_rate": float("nan")}),
        ("recipe.learning_rate", {"learning_rate": True}),
        ("recipe.steps", {"steps": 1.5}),
        ("recipe.steps", {"steps": True}),
        ("recipe.parameter_scaling", {"parameter_scaling": 1}),
        ("recipe.dropout_rate", {"dropout_rate": 1.0}),
        ("recipe.initialiser", {"initialiser": "zeros"}),
        ("recipe.initialiser", {"initialiser": 3}),
        ("recipe.initialiser_text", {"initialiser": "text"}),
        ("recipe.initialiser_text", {"initialiser_text": "hello"}),
        ("recipe.micro_batch_size", {"batch_size": 32, "micro_batch_size": 5}),
        ("recipe.steps_per_decay", {"decay_factor": 0.5}),
        ("recipe.steps_per_decay", {"steps_per_decay": 100}),
        ("recipe.max_input_tokens", {"max_input_tokens": 100, "prompt_length": 100}),
    ],
)
def test_a_refusal_names_the_field(field: str, document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Recipe.from_json(document)
    assert refused.value.field == field


def test_every_initialiser_can_be_asked_for() -> None:
    for name in get_args(Initialiser):
        assert Recipe(initialiser=name, initialiser_text="x" if name == "text" else None).initialiser == name
