"""From the columns of a file to a task's text and answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prompts_store.errors import InvalidError
from prompts_store.tasks.template import Template, parse_template
from prompts_store.text import is_unicode, shown
from server.errors import InvalidInputError
from server.tuning.data.examples import TextRow


@dataclass(frozen=True)
class ColumnMap:
    """Which columns are the input and which one is the answer.

    Attributes:
        template: the task's input template, `"{sentence1} [SEP] {sentence2}"`; the one it is served with.
        target: the column of the answer: a text, a number, a truth value, or a list of accepted texts of
            which the first is trained on.
        columns: template field -> column, for those whose names differ.
        target_texts: how an answer is written, `{"0": "negative", "1": "positive"}`; empty changes nothing.

    Raises:
        InvalidInputError: a template that is none, or a mapped field that it does not have.
    """

    template: str
    target: str
    columns: Mapping[str, str] = field(default_factory=dict)
    target_texts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self._parsed().fields
        for name in self.columns:
            if name not in known:
                message = f"the template has no field {ascii(name)[:60]}; it has {', '.join(known)}"
                raise InvalidInputError(message, field="columns")

    def text_row(self, row: int, record: Mapping[str, Any], *, field: str) -> TextRow:
        """One row of a file as text and answers.

        Raises:
            InvalidInputError: a missing column, an empty or nested value, or an answer that `target_texts`
                does not know; with the row.
        """
        parsed = self._parsed()
        place = f"row {row}"
        values = {name: _text(record, self.columns.get(name, name), place, field) for name in parsed.fields}
        try:
            text = parsed.render(values)
        except InvalidError as error:
            raise _refused(f"{place}: {error.message}", field) from error
        return TextRow(row, text, self._answers(record, place, field))

    def _answers(self, record: Mapping[str, Any], place: str, field: str) -> tuple[str, ...]:
        value = _value(record, self.target, place, field)
        several = list(value) if isinstance(value, list | tuple) else [value]
        if not several:
            raise _refused(f"{place}: the column {shown(self.target)} has no answer", field)
        texts = [_plain(each, self.target, place, field) for each in several]
        for text in texts:
            if self.target_texts and text not in self.target_texts:
                known = ", ".join(sorted(self.target_texts)[:10])
                message = (
                    f"{place}: target_texts does not say how to write {ascii(text)[:60]} (it has {known})"
                )
                raise _refused(message, field)
        answers = tuple(self.target_texts[text] if self.target_texts else text for text in texts)
        if not all(answer.strip() for answer in answers):
            raise _refused(f"{place}: the column {shown(self.target)} is empty", field)
        return answers

    def _parsed(self) -> Template:
        try:
            return parse_template(self.template)
        except InvalidError as error:
            raise InvalidInputError(error.message, field="template", code=error.code) from error


def _text(record: Mapping[str, Any], column: str, place: str, field: str) -> str:
    text = _plain(_value(record, column, place, field), column, place, field)
    if not text.strip():
        raise _refused(f"{place}: the column {shown(column)} is empty", field)
    return text


def _value(record: Mapping[str, Any], column: str, place: str, field: str) -> Any:
    if column not in record:
        known = ", ".join(shown(name) for name in list(record)[:10])
        raise _refused(f"{place}: there is no column {shown(column)}; the row has {known or 'none'}", field)
    if record[column] is None:
        raise _refused(f"{place}: the column {shown(column)} is empty", field)
    return record[column]


def _plain(value: Any, column: str, place: str, field: str) -> str:
    """A text as it is, a truth value as `true` or `false`, a number as JSON writes it."""
    if isinstance(value, str):
        if not is_unicode(value):
            raise _refused(f"{place}: the column {shown(column)} holds a lone surrogate", field)
        if "\0" in value:
            raise _refused(f"{place}: the column {shown(column)} holds a NUL character; remove it", field)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    message = (
        f"{place}: the column {shown(column)} holds {type(value).__name__}; expected a text, number or truth "
        "value"
    )
    raise _refused(message, field)


def _refused(message: str, field: str) -> InvalidInputError:
    return InvalidInputError(message, field=field, code="invalid_data")
