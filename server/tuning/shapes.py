"""The shapes that a job's programs are compiled for: a small ladder of its own, made from the job's data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.errors import InvalidInputError
from server.tuning.job import Job

ROUNDING = 8
"""Input lengths are multiples of it."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Each input length costs one training program, and one of each kind of evaluation in use.

    Attributes:
        prompts: N.
        prompt_length: P.
        width: D.
        rows_per_prompt: M, rows of each prompt in a micro-batch.
        input_lengths: L of each rung, ascending, prompt and `</s>` included.
        target_length: T.
        evaluation_rows: rows of an evaluation dispatch.
        labels: C, most labels of a task; 0 when no task has any.
        label_length: T of a label.
        new_tokens: most tokens of a free text; 0 when every task has labels.
    """

    prompts: int
    prompt_length: int
    width: int
    rows_per_prompt: int
    input_lengths: tuple[int, ...]
    target_length: int
    evaluation_rows: int
    labels: int
    label_length: int
    new_tokens: int

    @property
    def rows(self) -> int:
        """B of a micro-batch."""
        return self.prompts * self.rows_per_prompt

    def input_length(self, longest: int) -> int:
        """The smallest rung that holds an input of `longest` tokens."""
        return next(length for length in self.input_lengths if length >= longest)


def shapes_for(job: Job, *, rungs: int = 3, evaluation_rows: int | None = None) -> Shapes:
    """Shapes that hold everything in the job.

    Args:
        rungs: input lengths at most; they split the job's inputs evenly, the last holds the longest.
        evaluation_rows: rows of an evaluation dispatch; as many as a micro-batch has when left out.

    Raises:
        InvalidInputError: fewer than one rung or row.
    """
    if rungs < 1 or (evaluation_rows is not None and evaluation_rows < 1):
        raise InvalidInputError("rungs and evaluation_rows are at least 1", field="shapes")
    P, M, N = job.recipe.prompt_length, job.recipe.micro_batch_size, len(job.tasks)
    every = [
        example
        for task in job.tasks
        for split in (task.train, task.selection, task.report)
        for example in split
    ]
    free = [task for task in job.tasks if not task.labels]
    labels = [ids for task in job.tasks for ids in task.label_ids]
    return Shapes(
        prompts=N,
        prompt_length=P,
        width=job.width,
        rows_per_prompt=M,
        input_lengths=_rungs([P + len(example.input_ids) for example in every], rungs),
        target_length=max(len(example.target_ids) for example in every),
        evaluation_rows=evaluation_rows or N * M,
        labels=max((len(task.labels) for task in job.tasks), default=0),
        label_length=max((len(ids) for ids in labels), default=0),
        new_tokens=max((task.recipe.max_target_tokens for task in free), default=0),
    )


def _rungs(lengths: Sequence[int], count: int) -> tuple[int, ...]:
    ordered = sorted(lengths)
    places = [math.ceil(len(ordered) * (n + 1) / count) - 1 for n in range(count)]
    return tuple(sorted({-(-ordered[place] // ROUNDING) * ROUNDING for place in places}))
