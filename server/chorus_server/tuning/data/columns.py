"""Makes a task's text and answers from the columns of a file.

A column `answers.text` is the one named `text` within the column `answers`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from chorus_server.errors import InvalidInputError
from chorus_server.quality.column_metrics import LABEL, TRUTH
from chorus_server.tuning.data.conversations import HISTORY, SYSTEM, is_conversation
from chorus_server.tuning.data.cutting import Truncation
from chorus_server.tuning.data.examples import TextRow
from chorus_server.tuning.data.normalizers import normalized
from chorus_server.tuning.document.prompt import PromptDocument
from prompts_store.errors import InvalidError
from prompts_store.tasks.template import parse_template
from prompts_store.text import is_unicode, shown

_ABSENT = object()


def text_row(
    prompt: PromptDocument, row: int, record: Mapping[str, Any], *, field: str, measured: bool = False
) -> TextRow:
    """One row of a file: its text, from the prompt's template, and its answers, from the target column.

    Args:
        measured: whether answers to it are measured, so that it needs the columns of metrics.

    Raises:
        InvalidInputError: a column is missing, a value is empty or nested, or `target_texts` lacks an answer.
            The message names the row.
    """
    template = parse_template(prompt.template)
    values = normalized(prompt.settings, template, template_values(prompt, row, record, field=field))
    try:
        text = template.render(values)
    except InvalidError as error:
        raise _refused(f"row {row}: {error.message}", field) from error
    truncation = Truncation.of(prompt.settings)
    cut = None if truncation is None else (truncation, template, values)
    columns = metric_values(prompt, row, record, field=field) if measured else None
    return TextRow(row, text, answers_of(prompt, row, record, field=field), cut, columns)


def metric_values(
    prompt: PromptDocument, row: int, record: Mapping[str, Any], *, field: str
) -> dict[str, str] | None:
    """What metrics need of one row beside its answers, by what it is; None for nothing.

    Raises:
        InvalidInputError: a column is missing, a value is empty or nested, or one of `label` is no truth
            value. The message names the row.
    """
    columns = prompt.metric_columns
    found = {name: _text(record, column, f"row {row}", field) for name, column in columns.items()}
    if found.get(LABEL, "true").lower() not in TRUTH:
        message = f"row {row}: the column {shown(columns[LABEL])} has {shown(found[LABEL])}"
        raise _refused(f"{message}; expected true or false, or 1 or 0", field)
    return found or None


def template_values(
    prompt: PromptDocument, row: int, record: Mapping[str, Any], *, field: str
) -> dict[str, str]:
    """The fields of the prompt's template, from one row of a file.

    Raises:
        InvalidInputError: a column is missing, or a value is empty or nested. The message names the row.
    """
    fields = parse_template(prompt.template).fields
    return {name: _text(record, prompt.columns.get(name, name), f"row {row}", field) for name in fields}


def answers_of(prompt: PromptDocument, row: int, record: Mapping[str, Any], *, field: str) -> tuple[str, ...]:
    """The accepted answers of one row of a file, the target first. Raises as `text_row` does."""
    target, target_texts, place = prompt.target, prompt.target_texts, f"row {row}"
    value = _value(record, target, place, field)
    several = list(value) if isinstance(value, list | tuple) else [value]
    if not several:
        raise _refused(f"{place}: the column {shown(target)} has no answer", field)
    texts = [_plain(each, target, place, field) for each in several]
    for text in texts:
        if target_texts and text not in target_texts:
            known = ", ".join(sorted(target_texts)[:10])
            message = f"{place}: target_texts does not say how to write {ascii(text)[:60]} (it has {known})"
            raise _refused(message, field)
    answers = tuple(target_texts[text] if target_texts else text for text in texts)
    if not all(answer.strip() for answer in answers):
        raise _refused(f"{place}: the column {shown(target)} is empty", field)
    return answers


def _text(record: Mapping[str, Any], column: str, place: str, field: str) -> str:
    text = _plain(_value(record, column, place, field), column, place, field)
    if not text.strip() and not (column in (SYSTEM, HISTORY) and is_conversation(record)):
        raise _refused(f"{place}: the column {shown(column)} is empty", field)
    return text


def _value(record: Mapping[str, Any], column: str, place: str, field: str) -> Any:
    value = record[column] if column in record else _nested(record, column)
    if value is _ABSENT:
        known = ", ".join(shown(name) for name in list(record)[:10])
        raise _refused(f"{place}: there is no column {shown(column)}; the row has {known or 'none'}", field)
    if value is None:
        raise _refused(f"{place}: the column {shown(column)} is empty", field)
    return value


def _nested(value: Any, path: str) -> Any:
    """What a path such as `answers.text` names in nested columns; in a list, that of each element."""
    name, dot, rest = path.partition(".")
    if isinstance(value, list):
        found = [_nested(each, path) for each in value]
        return _ABSENT if any(each is _ABSENT for each in found) else found
    if not isinstance(value, Mapping) or name not in value:
        return _ABSENT
    return _nested(value[name], rest) if dot else value[name]


def _plain(value: Any, column: str, place: str, field: str) -> str:
    """A text unchanged, a truth value as `true` or `false`, a number as JSON writes it."""
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
