"""First values of prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.initialisers import initial_prompt
from tests.server.tuning.tuning_tools import RECIPE, VOCABULARY, source

SOURCE = source()
P, D = RECIPE.prompt_length, SOURCE.width


def _recipe(name: Any, text: str | None = None, **more: Any) -> Recipe:
    return RECIPE.changed(initialiser=name, initialiser_text=text, **more)


def _is_a_piece(row: Any, count: int = 40) -> bool:
    return bool((SOURCE.embed(VOCABULARY.common_pieces(count)) == row).all(axis=1).any())


@pytest.mark.parametrize("name", ["uniform", "sampled_vocabulary", "class_labels", "text", "words"])
def test_the_seed_and_the_index_decide(name: str) -> None:
    words = {"initialiser_words": ["ab"]} if name == "words" else {}
    recipe = _recipe(name, "ab" if name == "text" else None, **words)
    first = initial_prompt(recipe, SOURCE, 1, 0, labels=("x", "y"))
    assert (first.shape, first.dtype) == ((P, D), np.dtype(np.float32))
    np.testing.assert_array_equal(first, initial_prompt(recipe, SOURCE, 1, 0, labels=("x", "y")))
    for seed, index in ((2, 0), (1, 1)):
        assert not np.array_equal(first, initial_prompt(recipe, SOURCE, seed, index, labels=("x", "y")))


def test_uniform_fills_its_range() -> None:
    values = initial_prompt(_recipe("uniform", prompt_length=400, max_input_tokens=500), SOURCE, 1, 0)
    assert -0.5 <= values.min() < -0.49 and 0.49 < values.max() <= 0.5
    assert abs(values.mean()) < 0.01
    assert values.std() == pytest.approx(12**-0.5, abs=0.01)
    # Golden: an upgrade must not move a seed's prompt.
    np.testing.assert_array_equal(values[0, :3], initial_prompt(_recipe("uniform"), SOURCE, 1, 0)[0, :3])


def test_sampling_takes_common_pieces_once_each() -> None:
    values = initial_prompt(_recipe("sampled_vocabulary"), SOURCE, 1, 0)
    assert all(_is_a_piece(row) for row in values)
    assert len(np.unique(values, axis=0)) == P
    few = initial_prompt(_recipe("sampled_vocabulary", sampled_pieces=2), SOURCE, 1, 0)
    assert len(np.unique(few, axis=0)) == 2
    assert all(_is_a_piece(row, 2) for row in few)


def test_labels_come_first_averaged_over_their_tokens_and_the_rest_is_sampled() -> None:
    values = initial_prompt(_recipe("class_labels"), SOURCE, 1, 0, labels=("ab", "c"))
    np.testing.assert_allclose(values[0], SOURCE.embed(VOCABULARY.encode("ab")).mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(values[1], SOURCE.embed(VOCABULARY.encode("c"))[0])
    assert all(_is_a_piece(row) for row in values[2:])
    many = initial_prompt(_recipe("class_labels"), SOURCE, 1, 0, labels=tuple("abcdefgh"))
    np.testing.assert_array_equal(many, SOURCE.embed(VOCABULARY.encode("abcde")))


def test_a_text_is_its_tokens() -> None:
    values = initial_prompt(_recipe("text", "abc"), SOURCE, 1, 0)
    np.testing.assert_array_equal(values[:3], SOURCE.embed(VOCABULARY.encode("abc")))
    assert all(_is_a_piece(row) for row in values[3:])


def test_a_word_is_one_row_and_a_text_a_row_for_each_token() -> None:
    words = initial_prompt(_recipe("words", initialiser_words=["ab", "c"]), SOURCE, 1, 0)
    np.testing.assert_array_equal(
        words, initial_prompt(_recipe("class_labels"), SOURCE, 1, 0, labels=("ab", "c"))
    )
    text = initial_prompt(_recipe("text", "abc"), SOURCE, 1, 0)
    assert not np.array_equal(words[:2], text[:2]), "the control"


def test_an_existing_prompt_is_copied() -> None:
    old = np.random.default_rng(0).standard_normal((P, D)).astype(np.float32)
    values = initial_prompt(_recipe("existing_prompt"), SOURCE, 1, 0, existing=old)
    np.testing.assert_array_equal(values, old)
    values[0] = 0
    assert old[0].any()


@pytest.mark.parametrize(
    ("recipe", "more", "field"),
    [
        (_recipe("class_labels"), {}, "recipe.initialiser"),
        (_recipe("class_labels"), {"labels": ("a", " ")}, "labels.1"),
        (_recipe("text", "  "), {}, "recipe.initialiser_text"),
        (_recipe("words", initialiser_words=["a", " "]), {}, "recipe.initialiser_words.1"),
        (_recipe("existing_prompt"), {}, "recipe.initialiser"),
        (_recipe("existing_prompt"), {"existing": np.zeros((P + 1, D), np.float32)}, "recipe.prompt_length"),
    ],
)
def test_refusals(recipe: Recipe, more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        initial_prompt(recipe, SOURCE, 1, 0, **more)
    assert refused.value.field == field
