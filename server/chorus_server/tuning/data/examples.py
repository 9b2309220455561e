"""Turns texts into examples: ids of input and target, ready to follow a prompt."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.errors import InvalidInputError
from chorus_server.model.vocabulary import CONTROL_NAME, Vocabulary
from chorus_server.tuning.data.cutting import Truncation
from chorus_server.tuning.document.recipe import Recipe
from prompts_store.tasks.template import Template
from prompts_store.text import shown


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row of a dataset.

    Attributes:
        row: its number in the file, from 1, without a header.
        text: the filled template.
        answers: accepted answers; the first is the target.
        cut: how the prompt's settings cut a text that is too long, and the template's fields; None cuts its
            end.
        columns: what metrics need of it, by what it is; see `column_metrics.py`. None for nothing.
    """

    row: int
    text: str
    answers: tuple[str, ...]
    cut: tuple[Truncation, Template, Mapping[str, str]] | None = None
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One row as ids.

    Attributes:
        row: as in `TextRow`.
        input_ids: the text and `</s>`, without a prompt.
        target_ids: the target and `</s>`, after a sentinel if the recipe asks for one.
        answers, columns: as in `TextRow`.
    """

    row: int
    input_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    answers: tuple[str, ...]
    columns: Mapping[str, str] | None = None


_ROWS_A_LOOK = 1_000
_SHOWN_ROWS = 5


def make_examples(
    rows: Sequence[TextRow],
    vocabulary: Vocabulary,
    recipe: Recipe,
    *,
    field: str = "data",
    interrupt: Callable[[], None] = lambda: None,
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The rows as ids, and warnings.

    There is a warning for texts that are cut because they have more tokens than `Recipe.text_tokens`; for
    targets with characters that the vocabulary lacks; and for texts or targets that name a control token,
    which is spelled out. Equal ids share one object, and so do equal answers: millions of rows
    then take a quarter of the memory.

    Args:
        interrupt: called every thousand rows; what it raises ends the work.

    Raises:
        InvalidInputError: `target_too_long`: a target exceeds `max_target_tokens`; `same_target`: two
            different targets have the same ids. The message names the row.
    """
    room = recipe.text_tokens - 1
    examples: list[Example] = []
    cut: list[int] = []
    named_in_text: list[int] = []
    targets = _Targets(vocabulary, recipe, field)
    ones: dict[Any, Any] = {}
    for count, row in enumerate(rows):
        if count % _ROWS_A_LOOK == 0:
            interrupt()
        encoded = vocabulary.encode(row.text, allow_sentinels=recipe.special_tokens)
        if len(encoded) > room:
            cut.append(row.row)
            encoded = _cut(row, vocabulary, recipe, room) if row.cut is not None else encoded
        ids = [ones.setdefault(each, each) for each in encoded]
        if "<" in row.text and _named(row.text, recipe):
            named_in_text.append(row.row)
        target, answers = targets.ids(row), ones.setdefault(row.answers, row.answers)
        inputs = (*ids[:room], vocabulary.eos_id)
        examples.append(Example(row.row, inputs, target, answers, row.columns))
    warnings = [*_cut_warning(cut, room), *targets.warnings()]
    if named_in_text:
        warnings.append(
            f"{len(named_in_text)} texts, or their template, name a control token such as </s> or "
            f"<extra_id_0> (rows {row_numbers(named_in_text)}): it is spelled out like any other text"
        )
    return tuple(examples), tuple(warnings)


def _cut(row: TextRow, vocabulary: Vocabulary, recipe: Recipe, room: int) -> list[int]:
    """Ids of a text that is too long, cut as serving would; at its end if its field does not suffice."""
    assert row.cut is not None
    truncation, template, fields = row.cut
    values = {name: value.encode() for name, value in fields.items()}
    special = recipe.special_tokens
    ids = truncation.ids(vocabulary, template, row.text.encode(), values, room, allow_sentinels=special)
    return vocabulary.encode(row.text, allow_sentinels=special) if ids is None else ids


class _Targets:
    """Encodes the targets of a split, each text once, and collects warnings about them."""

    def __init__(self, vocabulary: Vocabulary, recipe: Recipe, field: str) -> None:
        self._vocabulary, self._recipe, self._field = vocabulary, recipe, field
        self._ids: dict[str, tuple[int, ...]] = {}
        self._first: dict[tuple[int, ...], TextRow] = {}
        self._unwritable: dict[str, str] = {}
        self._unwritable_rows: list[int] = []
        self._named: list[int] = []

    def ids(self, row: TextRow) -> tuple[int, ...]:
        """Ids of a row's target, with `</s>`."""
        text = row.answers[0]
        if text not in self._ids:
            self._ids[text] = self._checked(row, text)
        if text in self._unwritable:
            self._unwritable_rows.append(row.row)
        if "<" in text and _named(text, self._recipe):
            self._named.append(row.row)
        return self._ids[text]

    def _checked(self, row: TextRow, text: str) -> tuple[int, ...]:
        ids = target_ids(text, self._vocabulary, self._recipe)
        if len(ids) > self._recipe.max_target_tokens:
            raise InvalidInputError(
                f"row {row.row}: the target has {len(ids)} tokens with </s>; max_target_tokens is "
                f"{self._recipe.max_target_tokens}",
                field=self._field,
                code="target_too_long",
            )
        wanted, written = _plain(text), _plain(self._written(ids))
        if wanted != written:
            self._unwritable[text] = "".join(c for c in dict.fromkeys(wanted) if c not in written)
        first = self._first.setdefault(ids, row)
        if _plain(first.answers[0]) != wanted:
            raise InvalidInputError(
                f"row {row.row}: the target {shown(text)} becomes the same tokens as "
                f"{shown(first.answers[0])} of row {first.row}, since the "
                "vocabulary cannot write what tells them apart; write them in other characters "
                "(target_texts)",
                field=self._field,
                code="same_target",
            )
        return ids

    def _written(self, ids: Sequence[int]) -> str:
        return self._vocabulary.decode(ids, show_sentinels=self._recipe.special_tokens)

    def warnings(self) -> list[str]:
        found = []
        if self._unwritable_rows:
            characters = sorted({c for lost in self._unwritable.values() for c in lost})
            lost = ", ".join(shown(c) for c in characters[:20]) or "none of their own"
            found.append(
                f"{len(self._unwritable_rows)} targets cannot be written by the vocabulary (characters that "
                f"it does not have: {lost}; rows {row_numbers(self._unwritable_rows)}): no answer will equal "
                "them"
            )
        if self._named:
            found.append(
                f"{len(self._named)} targets name a control token such as </s> or <extra_id_0> "
                f"(rows {row_numbers(self._named)}): it is spelled out like any other text. To begin every "
                "target with <extra_id_0>, take it out of the rows and set sentinel_before_target in the "
                "recipe"
            )
        return found


def _named(text: str, recipe: Recipe) -> bool:
    """Whether a text names a control token that stays text."""
    names = (match[0] for match in CONTROL_NAME.finditer(text))
    return any(not (recipe.special_tokens and name.startswith("<extra_id_")) for name in names)


def _plain(text: str) -> str:
    """A text as SentencePiece normalises it: compatibility forms replaced, runs of blanks joined."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def row_numbers(rows: Sequence[int]) -> str:
    """The first few, for a message."""
    return ", ".join(map(str, rows[:_SHOWN_ROWS])) + (", ..." if len(rows) > _SHOWN_ROWS else "")


def target_ids(text: str, vocabulary: Vocabulary, recipe: Recipe) -> tuple[int, ...]:
    """Ids of a target, or of a label to be scored: `<extra_id_0>` if the recipe asks for it, text, `</s>`."""
    start = (vocabulary.sentinel(0),) if recipe.sentinel_before_target else ()
    return (*start, *vocabulary.encode(text, allow_sentinels=recipe.special_tokens), vocabulary.eos_id)


def _cut_warning(cut: Sequence[int], room: int) -> tuple[str, ...]:
    if not cut:
        return ()
    return (f"{len(cut)} texts have more than {room} tokens and were cut (rows {row_numbers(cut)})",)
