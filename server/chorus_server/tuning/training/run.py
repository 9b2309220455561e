"""A training run: N prompts that share every device dispatch, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.quality.metrics import check_metrics
from chorus_server.tuning.data.examples import Example
from chorus_server.tuning.document.fields import AnswerBy
from chorus_server.tuning.document.recipe import SHARED, Recipe
from chorus_server.tuning.training.initialisers import PromptValues
from prompts_store.digests import canonical_json, prompt_digest


@dataclass(frozen=True)
class PromptTask:
    """A prompt to train.

    Attributes:
        index: decides its random keys, with the job's seed, so that prompt 3 alone equals prompt 3 among
            others.
        recipe: how it is trained.
        initial: first values [P, D], f32.
        train: examples to learn from, at least one.
        validation: examples whose metric chooses the checkpoint; if empty, the last one is kept.
        test: examples on which the chosen checkpoint is measured once, at the end.
        metrics: names of `metrics.METRICS`; their mean chooses.
        labels: answers of a classification task, in order; empty for free text.
        label_ids: each label as it is scored; see `examples.target_ids`.
        answer_by: how labels are answered when the prompt is measured.
    """

    index: int
    recipe: Recipe
    initial: PromptValues
    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    labels: tuple[str, ...] = ()
    label_ids: tuple[tuple[int, ...], ...] = ()
    answer_by: AnswerBy = "ranked"

    @property
    def ranks(self) -> bool:
        """Whether an answer is the most probable label; if not, it is greedy text."""
        return bool(self.labels) and self.answer_by == "ranked"


@dataclass(frozen=True)
class TrainingRun:
    """The prompts that one job trains, checked together. A `TrainingState` says how far it is.

    Attributes:
        ensemble: whether they will vote: their vote is then measured on the test split too.

    Raises:
        InvalidInputError: there is nothing to train on, two prompts have one index and recipe, recipes differ
            in a shared field, a prompt has the wrong shape, the seed exceeds 63 bits, or metrics do not suit
            the labels.
    """

    seed: int
    tasks: tuple[PromptTask, ...]
    ensemble: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError(f"seed must be from 0 to 2**63 - 1, got {self.seed}", field="seed")
        if not self.tasks:
            raise InvalidInputError("a job trains at least one prompt", field="tasks")
        # With another recipe it is another trial of a sweep, with the same random keys.
        if len({(task.index, task.recipe) for task in self.tasks}) != len(self.tasks):
            raise InvalidInputError("two prompts of the job have the same index and recipe", field="tasks")
        for number, task in enumerate(self.tasks):
            self._check(f"tasks.{number}", task)

    @property
    def recipe(self) -> Recipe:
        """The first prompt's recipe, for the fields that all share."""
        return self.tasks[0].recipe

    @property
    def micro_batch_size(self) -> int:
        """Examples of each prompt in a dispatch: the whole batch unless the recipe says otherwise."""
        return self.recipe.micro_batch_size or self.recipe.batch_size

    @property
    def width(self) -> int:
        """D."""
        return int(self.tasks[0].initial.shape[1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that decides the outcome: a checkpoint continues this run only."""
        known: dict[int, str] = {}  # by identity: all prompts of an ensemble have the same splits
        # Not whether they are an ensemble: that changes no prompt.
        document = [self.seed, *(_facts(task, known) for task in self.tasks)]
        return hashlib.sha256(canonical_json(document)).hexdigest()

    def _check(self, field: str, task: PromptTask) -> None:
        if not task.train:
            raise InvalidInputError("the train split is empty", field=f"{field}.train", code="empty_split")
        for name in SHARED:
            if getattr(task.recipe, name) != getattr(self.recipe, name):
                message = f"all prompts of a job need the same {name}; start another job for another value"
                raise InvalidInputError(message, field=f"{field}.recipe.{name}")
        wanted = (self.recipe.prompt_length, self.width)
        if task.initial.shape != wanted or not np.isfinite(task.initial).all():
            message = (
                f"the first values must be finite and of shape {list(wanted)}, got {list(task.initial.shape)}"
            )
            raise InvalidInputError(message, field=f"{field}.initial")
        if len(task.labels) != len(task.label_ids):
            raise InvalidInputError("labels and label_ids differ in number", field=f"{field}.label_ids")
        check_metrics(task.metrics, task.labels)


def _facts(task: PromptTask, known: dict[int, str]) -> dict[str, object]:
    splits = (task.train, task.validation, task.test)
    for split in splits:
        if id(split) not in known:
            known[id(split)] = _split_digest(split)
    greedy = {"answer_by": "greedy"} if task.labels and not task.ranks else {}  # as checkpoints lack it
    return {
        **greedy,
        "index": task.index,
        "recipe": task.recipe.to_json(),
        "initial": prompt_digest(np.asarray(task.initial, np.float32)),
        "metrics": task.metrics,
        "labels": task.labels,
        "label_ids": task.label_ids,
        "splits": [known[id(split)] for split in splits],
    }


def _split_digest(split: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in split:
        columns = [example.columns] if example.columns else []  # as earlier checkpoints lack them
        digest.update(canonical_json([example.input_ids, example.target_ids, example.answers, *columns]))
    return digest.hexdigest()
