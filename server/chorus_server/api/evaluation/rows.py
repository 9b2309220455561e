"""From a data file to rows that every subject can be asked about, checked before anything runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chorus_server.api.jobs.attempt import EngineAttempt
from chorus_server.api.schemas.documents.evaluation import MOST_ROWS, BaseSubject, EvaluationDocument
from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.columns import answers_of, metric_values, template_values, text_row
from chorus_server.tuning.data.examples import TextRow
from chorus_server.tuning.data.normalizers import normalized
from chorus_server.tuning.data.readers import ReadOptions, read_rows
from chorus_server.tuning.data.splits import check_rows
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.document.recipe import NORMALIZER_SETTING
from prompts_store.tasks.template import parse_template

_ROWS_A_LOOK = 1_000


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One row of the file.

    Attributes:
        row: its number in the file, from 1, without a header.
        answers: accepted answers; the first is the target.
        values: the fields of each subject's template; a version's are not normalised yet.
        columns: what metrics need of it, by what it is; None for nothing.
    """

    row: int
    answers: tuple[str, ...]
    values: tuple[Mapping[str, str], ...]
    columns: Mapping[str, str] | None = None


def evaluation_rows(
    attempt: EngineAttempt, document: EvaluationDocument, templates: Sequence[str]
) -> tuple[list[EvaluationRow], tuple[str, ...]]:
    """The rows of the file, and warnings.

    Args:
        templates: of each subject.

    Raises:
        InvalidInputError: a bad row, by its number, field `file`.
        StoreError: the file is not there.
    """
    prompts = [
        _prompt(document, template, subject.base)
        for template, subject in zip(templates, document.subjects, strict=True)
    ]
    rows: list[EvaluationRow] = []
    texts: list[TextRow] = []
    for row, record in _records(attempt, document, document.file, "file"):
        answers = answers_of(prompts[0], row, record, field="file")
        values = tuple(_values(prompt, row, record) for prompt in prompts)
        columns = metric_values(prompts[0], row, record, field="file")
        rows.append(EvaluationRow(row, answers, values, columns))
        texts.append(TextRow(row, parse_template(templates[0]).render(values[0]), answers))
    try:
        warnings = check_rows("test", texts, document.labels)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field="file", code=error.code) from error
    return rows, warnings


def few_shot_text(attempt: EngineAttempt, document: EvaluationDocument, subject: BaseSubject) -> str:
    """What stands before each input of a base subject: the instruction, and examples with their answers.

    The seed chooses the examples, from each label in turn where there are labels.

    Raises:
        InvalidInputError: a bad row, or too few rows, field `examples`.
    """
    parts = [subject.instruction] if subject.instruction else []
    if subject.few_shot:
        assert document.examples is not None
        prompt = _prompt(document, subject.template, subject)
        found = [
            text_row(prompt, row, record, field="examples")
            for row, record in _records(attempt, document, document.examples, "examples")
        ]
        chosen = choose_examples(found, document.labels, subject.few_shot, document.seed)
        parts += [f"{row.text} {row.answers[0]}" for row in chosen]
    return "".join(f"{part}\n\n" for part in parts)


def commonest_answer(attempt: EngineAttempt, document: EvaluationDocument) -> tuple[str, float]:
    """The commonest answer of the examples, of equal ones the first, and its share of them.

    Raises:
        InvalidInputError: a bad row, or no row, field `examples`.
    """
    assert document.examples is not None
    prompt = _prompt(document, "{text}")
    counts: Counter[str] = Counter()
    for row, record in _records(attempt, document, document.examples, "examples"):
        answer = answers_of(prompt, row, record, field="examples")[0]
        if document.labels and answer not in document.labels:
            raise _unknown(row, answer)
        counts[answer] += 1
    if not counts:
        raise InvalidInputError("examples has no rows", field="examples", code="empty_split")
    answer, count = counts.most_common(1)[0]
    return answer, count / counts.total()


def choose_examples(rows: Sequence[TextRow], labels: Sequence[str], count: int, seed: int) -> list[TextRow]:
    """So many rows, from each label in turn, in an order that the seed decides.

    Raises:
        InvalidInputError: there are too few, field `examples`.
    """
    if len(rows) < count:
        message = f"examples has {len(rows)} rows, and few_shot asks for {count}"
        raise InvalidInputError(message, field="examples")
    chance = random.Random(seed)
    groups = [[row for row in rows if row.answers[0] == label] for label in labels] or [list(rows)]
    others = [row for row in rows if labels and row.answers[0] not in labels]
    if others:
        raise _unknown(others[0].row, others[0].answers[0])
    for group in groups:
        chance.shuffle(group)
    chosen: list[TextRow] = []
    while len(chosen) < count:
        for group in groups:
            if group and len(chosen) < count:
                chosen.append(group.pop())
    chance.shuffle(chosen)
    return chosen


def _unknown(row: int, answer: str) -> InvalidInputError:
    message = f"row {row}: the answer {ascii(answer)[:60]} is none of the labels"
    return InvalidInputError(message, field="examples", code="unknown_label")


def _records(
    attempt: EngineAttempt, document: EvaluationDocument, file_id: str, field: str
) -> list[tuple[int, dict[str, Any]]]:
    store, tenant = attempt.store, attempt.job.tenant
    most = attempt.services.settings.tuning_max_file_bytes
    options = ReadOptions(
        format=document.format,
        column_names=document.column_names or None,
        max_rows=MOST_ROWS,
        max_bytes=most,
        name=store.get_file(tenant, file_id).name,
    )
    warnings: list[str] = []
    found: list[tuple[int, dict[str, Any]]] = []
    with store.local_file(tenant, file_id) as path:
        for record in read_rows(path, options, field=field, warn=warnings.append):
            if len(found) % _ROWS_A_LOOK == 0:
                attempt.held.check()
            found.append(record)
    attempt.warn(warnings)
    return found


def _values(prompt: PromptDocument, row: int, record: dict[str, Any]) -> Mapping[str, str]:
    values = template_values(prompt, row, record, field="file")
    return normalized(prompt.settings, parse_template(prompt.template), values)


def _prompt(document: EvaluationDocument, template: str, base: BaseSubject | None = None) -> PromptDocument:
    """How tuning reads such a file. The base model has no settings of a version that normalise, so its own
    do it here."""
    known = set(parse_template(template).fields)
    settings = {} if base is None or base.normalizer is None else {NORMALIZER_SETTING: base.normalizer}
    prompt = PromptDocument(
        template=template, target=document.target, target_texts=document.target_texts, settings=settings
    )
    columns = {name: column for name, column in document.columns.items() if name in known}
    return prompt.model_copy(update={"columns": columns, "metric_columns": document.metric_columns})


def with_text(row: EvaluationRow, place: int, template: str, before: str) -> bytes:
    """The whole input of a base subject, in UTF-8."""
    return (before + parse_template(template).render(row.values[place])).encode()
