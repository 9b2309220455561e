"""The recipe: the paper's defaults, refusals that name the field, and JSON there and back."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.recipe import RELEASED, Initialiser, Recipe


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
        ("recipe.initialiser_words", {"initialiser": "words"}),
        ("recipe.initialiser_words", {"initialiser": "words", "initialiser_words": []}),
        ("recipe.initialiser_words", {"initialiser_words": ["hello"]}),
        ("recipe.defaults", {"defaults": "blog"}),
        ("recipe.loss_reduction", {"loss_reduction": "max"}),
        ("recipe.max_text_tokens", {"max_text_tokens": 1}),
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
        text, words = "x" if name == "text" else None, ["x"] if name == "words" else None
        found = Recipe.from_json({"initialiser": name, "initialiser_text": text, "initialiser_words": words})
        assert found.initialiser == name


def test_the_released_recipe_is_written_out() -> None:
    paper, released = Recipe.from_json({}), Recipe.from_json({"defaults": "released"})
    assert (
        paper == Recipe.from_json({"defaults": "paper"}) and released.to_json() == paper.to_json() | RELEASED
    )
    assert (paper.text_tokens, released.text_tokens) == (412, 512), "the prompt comes on top"
    own = Recipe.from_json({"defaults": "released", "loss_reduction": "mean", "max_text_tokens": 60})
    assert (own.loss_reduction, own.text_tokens, own.second_moment_steps_before) == ("mean", 60, 1_100_000)
    assert Recipe.from_json(own.to_json()) == own and released.changed(steps=5).steps == 5
    assert Recipe.from_json({"max_text_tokens": 9, "max_input_tokens": 2}).text_tokens == 9
    data = {"train": {"file": "file-1"}}
    beside = {"task": "t", "data": data, "recipe": {"defaults": "released", "steps": 7}}
    two = JobDocument.from_json({**beside, "prompts": [{"recipe": {"learning_rate": 1}}, {"task": "u"}]})
    assert [each.recipe.max_text_tokens for each in two.prompts] == [512, 512]
    assert JobDocument.from_json(two.to_json()) == two, "a stored document is taken again"
