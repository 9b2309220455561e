"""Texts become examples: ids of input and target, ready to be put behind a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from server.errors import InvalidInputError
from server.tuning.recipe import Recipe


class Encoder(Protocol):
    """The part of `Vocabulary` that examples use."""

    eos_id: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without `</s>`."""
        ...

    def sentinel(self, index: int) -> int:
        """Id of `<extra_id_{index}>`."""
        ...


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row of a dataset.

    Attributes:
        row: its number in the file, from 1, without a header.
        text: the filled template.
        answers: accepted answers, the first one the target.
    """

    row: int
    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One row as ids.

    Attributes:
        row: as in `TextRow`.
        input_ids: the text and `</s>`, without a prompt.
        target_ids: the target and `</s>`, after a sentinel where the recipe asks for one.
        answers: as in `TextRow`.
    """

    row: int
    input_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    answers: tuple[str, ...]


_ROWS_A_LOOK = 1_000


def make_examples(
    rows: Sequence[TextRow],
    vocabulary: Encoder,
    recipe: Recipe,
    *,
    field: str = "data",
    interrupt: Callable[[], None] = lambda: None,
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The rows as ids, and warnings.

    A text longer than `max_input_tokens` allows beside prompt and `</s>` is cut, and said so. Equal ids and
    answers are one object each: millions of rows take a quarter of the memory.

    Args:
        interrupt: called each thousand rows; what it raises ends the work.

    Raises:
        InvalidInputError: a target longer than `max_target_tokens`; with the row.
    """
    room = recipe.max_input_tokens - recipe.prompt_length - 1
    examples, cut = [], []
    ones: dict[Any, Any] = {}
    for count, row in enumerate(rows):
        if count % _ROWS_A_LOOK == 0:
            interrupt()
        ids = [ones.setdefault(each, each) for each in vocabulary.encode(row.text)]
        if len(ids) > room:
            cut.append(row.row)
        target = target_ids(row.answers[0], vocabulary, recipe)
        if len(target) > recipe.max_target_tokens:
            raise InvalidInputError(
                f"row {row.row}: the target has {len(target)} tokens with </s>; max_target_tokens is "
                f"{recipe.max_target_tokens}",
                field=field,
                code="target_too_long",
            )
        target, answers = ones.setdefault(target, target), ones.setdefault(row.answers, row.answers)
        examples.append(Example(row.row, (*ids[:room], vocabulary.eos_id), target, answers))
    return tuple(examples), _cut_warning(cut, room)


def target_ids(text: str, vocabulary: Encoder, recipe: Recipe) -> tuple[int, ...]:
    """A target, or a label as it is scored: its ids and `</s>`, after `<extra_id_0>` where asked for."""
    start = (vocabulary.sentinel(0),) if recipe.sentinel_before_target else ()
    return (*start, *vocabulary.encode(text), vocabulary.eos_id)


def _cut_warning(cut: Sequence[int], room: int) -> tuple[str, ...]:
    if not cut:
        return ()
    some = ", ".join(str(row) for row in cut[:5]) + (", ..." if len(cut) > 5 else "")
    return (f"{len(cut)} texts have more than {room} tokens and were cut (rows {some})",)
