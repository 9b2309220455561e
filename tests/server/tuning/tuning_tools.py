"""A tiny random T5, a vocabulary of single letters, and toy tasks that a prompt can learn in seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from chorus_server.engine.executor.testing import tiny_model
from chorus_server.model.t5 import Model
from chorus_server.tuning.data.examples import TextRow, make_examples, target_ids
from chorus_server.tuning.document.recipe import Recipe
from chorus_server.tuning.training.initialisers import InitialiserSource, initial_prompt
from chorus_server.tuning.training.programs import TuningPrograms, compile_programs
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from chorus_server.tuning.training.shapes import TrainingShapes, shapes_for

LABELS = ("n", "y")
RECIPE = Recipe(
    steps=6, batch_size=8, micro_batch_size=4, prompt_length=5, dropout_rate=0.1, max_input_tokens=24,
    max_target_tokens=6, evaluate_every_steps=3, checkpoint_every_steps=2, sampled_pieces=40,
)  # fmt: skip


class Letters:
    """A vocabulary with the shape of `Vocabulary`: a piece a letter, the commonest first, sentinels at the
    end."""

    pad_id, eos_id = 0, 1
    size = 163

    def encode(self, text: str, *, allow_sentinels: bool = False) -> list[int]:
        return [3 + ord(letter) % 60 for letter in text if not letter.isspace()]

    def encode_start(
        self, text: bytes, most: int, *, allow_sentinels: bool = False
    ) -> tuple[list[int], bool]:
        return self.encode(text.decode()), True

    def decode(self, ids: Sequence[int], *, show_sentinels: bool = False) -> str:
        return "".join(chr(97 + (id - 3 - 97 % 60) % 60) for id in ids if 3 <= id < 63)

    def sentinel(self, index: int) -> int:
        return self.size - 1 - index

    def common_pieces(self, count: int) -> list[int]:
        return list(range(3, 63))[:count]


VOCABULARY = Letters()


@lru_cache
def model(layout: Any = "unrolled") -> Model:
    return tiny_model(layout=layout)


def source() -> InitialiserSource:
    embedding = np.asarray(model().params["embedding"], np.float32)
    return InitialiserSource(VOCABULARY, lambda ids: embedding[list(ids)], embedding.shape[1])


def letters_task(count: int, seed: int) -> list[TextRow]:
    """Three letters: of `cd` the answer is `n`, of `ab` it is `y`. As many of each."""
    generator = np.random.default_rng(seed)
    return [
        TextRow(row + 1, "".join(generator.choice(list(("cd", "ab")[row % 2]), 3)), (LABELS[row % 2],))
        for row in range(count)
    ]


def task(
    index: int = 0, recipe: Recipe = RECIPE, *, seed: int = 7, free_text: bool = False, **more: Any
) -> PromptTask:
    train, _ = make_examples(letters_task(more.pop("train_rows", 30), 10 + index), VOCABULARY, recipe)
    held_out, _ = make_examples(letters_task(more.pop("held_out_rows", 12), 50 + index), VOCABULARY, recipe)
    labels = () if free_text else LABELS
    return PromptTask(
        index=index,
        recipe=recipe,
        initial=initial_prompt(recipe, source(), seed, index, labels=LABELS),
        train=train,
        validation=held_out,
        labels=labels,
        label_ids=tuple(target_ids(label, VOCABULARY, recipe) for label in labels),
        **more,
    )


@lru_cache
def _compiled(shapes: TrainingShapes, dropping: bool, layout: Any, quickly: str | None) -> TuningPrograms:
    resident = model(layout)
    return compile_programs(resident.functions, resident.params, shapes, dropping=dropping)


def programs(
    job: TrainingRun, layout: Any = "unrolled", shapes: TrainingShapes | None = None
) -> TuningPrograms:
    """Compiled once for jobs of the same shapes."""
    wanted = shapes or replace(shapes_for(job, rungs=1), input_lengths=(24,))
    # Those of a module with `compiled_quickly` are others, in their last bits too.
    quickly = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS")
    return _compiled(wanted, job.recipe.dropout_rate > 0, layout, quickly)
