"""The shapes that a job's programs are compiled for: a small ladder, made from the job's data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.order import batch_indices
from chorus_server.tuning.training.run import TrainingRun

T = TypeVar("T")

ROUNDING = 8
"""Input lengths are multiples of this."""
WORTH = 0.2
"""A rung must save this share of the padded tokens, because each costs a compile."""
_FORESEEN = 32
"""Steps whose batches say how many tokens a dispatch has: hardly any later one has more, and takes fewer rows
then."""
_TRIED = 24
"""Most lengths that are considered as rungs, since all pairs of them are tried."""


@dataclass(frozen=True, slots=True)
class TrainingShapes:
    """Shapes of dispatches. Each input length costs a training program, and one for each kind of evaluation.

    Attributes:
        prompts: N.
        prompt_length: P.
        width: D.
        rows_per_prompt: M, rows of each prompt in a micro-batch.
        input_lengths: L of each rung, ascending, prompt and `</s>` included.
        rows_by_length: most rows of each prompt in a group's part of a dispatch of each rung.
        tokens_by_length: tokens of all those rows, at least one row's of each prompt.
        target_length: T.
        evaluation_rows: rows of an evaluation dispatch.
        labels: C, most labels of a task; 0 if no task ranks any.
        label_length: T of a label.
        new_tokens: most tokens of a free text; 0 if every task ranks labels.
        groups: of devices, which share the rows of every dispatch.
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
    rows_by_length: tuple[int, ...] = ()
    tokens_by_length: tuple[int, ...] = ()
    groups: int = 1

    def tokens_at(self, length: int) -> int:
        """Tokens of a group in a dispatch of the rung of this length: of whole rows unless the shapes say
        otherwise."""
        if not self.tokens_by_length:
            return self.prompts * self.rows_at(length) * length
        return self.tokens_by_length[self.input_lengths.index(length)]

    def rows_at(self, length: int) -> int:
        """Most rows of each prompt in a group's part of a dispatch of the rung of this length."""
        if not self.rows_by_length:
            return -(-self.rows_per_prompt // self.groups)
        return self.rows_by_length[self.input_lengths.index(length)]

    @property
    def longest_rung(self) -> TrainingShapes:
        """The same with the longest rung alone."""
        ends = (self.input_lengths[-1:], self.rows_by_length[-1:], self.tokens_by_length[-1:])
        return replace(self, input_lengths=ends[0], rows_by_length=ends[1], tokens_by_length=ends[2])

    def input_length(self, longest: int) -> int:
        """The smallest rung that holds an input of `longest` tokens."""
        return next(length for length in self.input_lengths if length >= longest)


def shapes_for(
    run: TrainingRun,
    *,
    rungs: int = 3,
    evaluation_rows: int | None = None,
    dispatch_tokens: int | None = None,
    groups: int = 1,
) -> TrainingShapes:
    """Shapes into which everything in the job fits.

    Args:
        rungs: most input lengths; those are chosen that pad the job's inputs least.
        evaluation_rows: rows of an evaluation dispatch; as many as a micro-batch has if left out. Some are
            added if groups could not share them.
        dispatch_tokens: most input tokens of a prompt in a dispatch: rungs that would have more get half the
            rows, a quarter and so on, but at least one. If left out, all have M rows.
        groups: of devices, which share every dispatch. Where the rows cannot be divided, some groups have a
            row less.

    Raises:
        InvalidInputError: `rungs` or `evaluation_rows` is below 1.
    """
    if rungs < 1 or (evaluation_rows is not None and evaluation_rows < 1):
        raise InvalidInputError("rungs and evaluation_rows are at least 1", field="shapes")
    P, M, N = run.recipe.prompt_length, run.micro_batch_size, len(run.tasks)
    every = [
        example
        for task in run.tasks
        for split in (task.train, task.validation, task.test)
        for example in split
    ]
    free = [task for task in run.tasks if not task.ranks]
    ranked = [task for task in run.tasks if task.ranks]
    labels = [ids for task in ranked for ids in task.label_ids]
    lengths = _rungs([P + len(example.input_ids) for example in every], rungs)
    rows = tuple(-(-rows_within(dispatch_tokens, length, M) // groups) for length in lengths)
    return TrainingShapes(
        prompts=N,
        prompt_length=P,
        width=run.width,
        rows_per_prompt=M,
        input_lengths=lengths,
        rows_by_length=rows,
        tokens_by_length=_tokens_needed(run, lengths, rows, groups),
        target_length=max(len(example.target_ids) for example in every),
        evaluation_rows=-(-(evaluation_rows or N * M) // groups) * groups,
        labels=max((len(task.labels) for task in ranked), default=0),
        label_length=max((len(ids) for ids in labels), default=0),
        new_tokens=max((task.recipe.max_target_tokens for task in free), default=0),
        groups=groups,
    )


def _rungs(lengths: Sequence[int], count: int) -> tuple[int, ...]:
    """At most so many rungs, each worth its compile: those with the fewest tokens, with padding."""
    inputs = Counter(-(-length // ROUNDING) * ROUNDING for length in lengths)
    ordered = sorted(inputs, reverse=True)
    every = sorted(ordered[:: -(-len(ordered) // _TRIED)])
    best, fewest = every[-1:], len(lengths) * every[-1]
    for rungs in range(2, min(count, len(every)) + 1):
        tried = ((*some, every[-1]) for some in combinations(every[:-1], rungs - 1))
        tokens, found = min((_tokens(inputs, some), some) for some in tried)
        if tokens > (1 - WORTH) * fewest:
            break
        best, fewest = list(found), tokens
    return tuple(best)


def deals(input_lengths: Sequence[int], groups: int) -> bool:
    """Whether a step's examples are dealt out to its dispatches. With several rungs those of similar lengths
    stay together, and several groups share each dispatch."""
    return len(input_lengths) == 1 and groups == 1


def _tokens_needed(
    run: TrainingRun, lengths: Sequence[int], rows: Sequence[int], groups: int
) -> tuple[int, ...]:
    """Tokens that the rows of a dispatch of each rung have together, the most in the first steps of the run.
    They are the longest rows, in the group that gets the longest, or any, where rows are dealt out."""
    most = [len(run.tasks) * length for length in lengths]
    size, P = run.recipe.batch_size, run.recipe.prompt_length
    for step in range(_FORESEEN):
        batches = [
            sorted(
                (
                    P + len(task.train[index].input_ids)
                    for index in batch_indices(run.seed, task.index, step, size, len(task.train))
                ),
                reverse=True,
            )
            for task in run.tasks
        ]
        for place, (length, many) in enumerate(zip(lengths, rows, strict=True)):
            if deals(lengths, groups):
                turns = [dealt(batch[::-1], many) for batch in batches]
                together = [sum(each) for each in zip(*turns, strict=True)]
                needed = max(sum(together[start : start + many]) for start in range(0, size, many))
            else:
                fitting = (
                    [each for each in batch if each <= length][: many * groups : groups] for batch in batches
                )
                needed = sum(map(sum, fitting))
            most[place] = max(most[place], needed)
    return tuple(-(-tokens // ROUNDING) * ROUNDING for tokens in most)


def _tokens(inputs: Mapping[int, int], rungs: Sequence[int]) -> int:
    """Tokens of all inputs, each padded to its rung."""
    return sum(next(rung for rung in rungs if rung >= length) * many for length, many in inputs.items())


def dealt(shortest_first: Sequence[T], rows: int) -> list[T]:
    """In another order, whose parts of `rows` have about as many tokens each: the longest are dealt out to
    the parts in turn, there and back."""
    parts: list[list[T]] = [[] for _ in range(-(-len(shortest_first) // rows))]
    for place, each in enumerate(reversed(shortest_first)):
        turn, part = divmod(place, len(parts))
        parts[part if turn % 2 == 0 else -1 - part].append(each)
    return [each for part in parts for each in part]


def rows_within(tokens: int | None, length: int, most: int) -> int:
    """`most`, halved until so many rows of this length have at most `tokens` tokens, or until it is odd."""
    rows = most
    while tokens is not None and rows % 2 == 0 and rows * length > tokens:
        rows //= 2
    return rows
