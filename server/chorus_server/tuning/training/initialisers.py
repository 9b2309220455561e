"""First values of a prompt (Lester et al. 2021, section 3.2, "Prompt design"), decided by a seed.

uniform              each value in [-0.5, 0.5]
sampled_vocabulary   embeddings of pieces drawn from the most common ones
class_labels         the embedding of each label (the mean over its tokens), the rest sampled
text                 the embeddings of a text's tokens, the rest sampled
words                the embedding of each word (the mean over its tokens), the rest sampled
existing_prompt      the values of another prompt (transfer)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import Vocabulary
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.raw_bits import chosen, unit_floats

PromptValues = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class InitialiserSource:
    """What initialisers draw from.

    Attributes:
        vocabulary: of the base model.
        embed: ids -> their embedding rows [n, D], f32.
        width: D.
    """

    vocabulary: Vocabulary
    embed: Callable[[Sequence[int]], PromptValues]
    width: int


def initial_prompt(
    recipe: Recipe,
    source: InitialiserSource,
    seed: int,
    index: int,
    *,
    labels: Sequence[str] = (),
    existing: PromptValues | None = None,
) -> PromptValues:
    """First values [P, D], f32.

    Args:
        seed: the job's.
        index: the prompt's; another index gives other values.
        labels: of the task, for `class_labels`.
        existing: [P, D], for `existing_prompt`.

    Raises:
        InvalidInputError: labels are missing, a label, word or text has no token, or the existing prompt has
            another shape.
    """
    if recipe.initialiser == "uniform":
        flat = unit_floats(recipe.prompt_length * source.width, "uniform", seed, index)
        return (flat - np.float32(0.5)).reshape(recipe.prompt_length, source.width)
    if recipe.initialiser == "existing_prompt":
        return _existing(recipe, source, existing)
    values = _sampled(recipe, source, seed, index)
    if recipe.initialiser == "class_labels":
        rows = _label_rows(source, labels)
    elif recipe.initialiser == "words":
        rows = _means(source, recipe.initialiser_words or (), "recipe.initialiser_words")
    elif recipe.initialiser == "text":
        rows = _text_rows(source, recipe.initialiser_text or "")
    else:
        return values
    first = rows[: recipe.prompt_length]
    values[: len(first)] = first
    return values


def _sampled(recipe: Recipe, source: InitialiserSource, seed: int, index: int) -> PromptValues:
    """[P, D] of common pieces, all different if there are enough."""
    pool = source.vocabulary.common_pieces(recipe.sampled_pieces)
    if not pool:
        raise InvalidInputError(
            "the vocabulary has no ordinary pieces to sample from", field="recipe.initialiser"
        )
    picked = chosen(recipe.prompt_length, len(pool), "sampled", seed, index)
    return source.embed([pool[n] for n in picked]).copy()


def _label_rows(source: InitialiserSource, labels: Sequence[str]) -> PromptValues:
    """A row for each label: the mean of its tokens' embeddings."""
    if not labels:
        message = (
            "the class_labels initialiser needs labels; name them, or choose sampled_vocabulary for free text"
        )
        raise InvalidInputError(message, field="recipe.initialiser")
    return _means(source, labels, "labels")


def _means(source: InitialiserSource, texts: Sequence[str], field: str) -> PromptValues:
    """A row for each text: the mean of its tokens' embeddings."""
    rows = []
    for number, text in enumerate(texts):
        ids = source.vocabulary.encode(text)
        if not ids:
            name = f"{field}.{number}"
            raise InvalidInputError(f"{name} has no token to initialise from", field=name)
        rows.append(source.embed(ids).mean(axis=0, dtype=np.float32))
    return np.stack(rows)


def _text_rows(source: InitialiserSource, text: str) -> PromptValues:
    ids = source.vocabulary.encode(text)
    if not ids:
        raise InvalidInputError("initialiser_text has no token", field="recipe.initialiser_text")
    return source.embed(ids)


def _existing(recipe: Recipe, source: InitialiserSource, existing: PromptValues | None) -> PromptValues:
    wanted = (recipe.prompt_length, source.width)
    if existing is None:
        raise InvalidInputError("the existing_prompt initialiser needs a prompt", field="recipe.initialiser")
    if existing.shape != wanted:
        message = f"the existing prompt has shape {list(existing.shape)}, the recipe asks for {list(wanted)}"
        raise InvalidInputError(message, field="recipe.prompt_length")
    return existing.astype(np.float32).copy()
