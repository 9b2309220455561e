"""Checks what a pack says of its questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import Connection, Row

from prompts_store.database import scoped
from prompts_store.errors import InvalidError
from prompts_store.grants import rows as grants
from prompts_store.names import check_name
from prompts_store.records import PackEntry, Reference, UnknownQuestions
from prompts_store.tasks.references import check_version
from prompts_store.tasks.versions import resolve
from prompts_store.text import has_control_characters, is_unicode, shown

MAX_QUESTIONS = 400
MAX_ID_CHARACTERS = 256
MAX_VALUES = 255
UNKNOWN_QUESTIONS: tuple[UnknownQuestions, ...] = get_args(UnknownQuestions)


def check_entries(entries: Sequence[PackEntry], unknown_questions: object) -> tuple[PackEntry, ...]:
    """The entries, if each is well formed and none has the question of another.

    Raises:
        InvalidError: field `unknown_questions`, `questions` or `questions.ID.NAME`.
    """
    if unknown_questions not in UNKNOWN_QUESTIONS:
        raise InvalidError(
            f"unknown_questions is {shown(unknown_questions)}; send 'refuse', or 'base' to ask the base "
            "model.",
            field="unknown_questions",
        )
    if not 1 <= len(entries) <= MAX_QUESTIONS:
        raise InvalidError(
            f"A pack has 1 to {MAX_QUESTIONS} questions, not {len(entries)}.", field="questions"
        )
    seen: set[str] = set()
    for entry in entries:
        _check_id(entry.question)
        field = entry_field(entry.question)
        if entry.question in seen:
            raise InvalidError(f"The question {shown(entry.question)} is there twice: keep one.", field=field)
        seen.add(entry.question)
        check_name(entry.tenant, field=f"{field}.tenant")
        check_name(entry.task, field=f"{field}.task")
        check_version(entry.version, field=f"{field}.version")
        _check_values(entry, f"{field}.values")
    return tuple(entries)


def find_entries(
    connection: Connection, tenant: str, entries: Sequence[PackEntry]
) -> list[tuple[PackEntry, int]]:
    """The entries of a tenant's pack, with the keys of their versions.

    Raises:
        NotFoundError: a version does not exist, or is another tenant's and may not be asked.
        InvalidError: a version has no labels to answer with, or not one that a value is mapped to;
            `base_mismatch`: the versions have different base models or widths.
    """
    found: list[tuple[PackEntry, int]] = []
    first: Row[Any] | None = None
    known: str | None = None
    for entry in entries:
        field = entry_field(entry.question)
        grants.require(
            connection, "task", entry.tenant, entry.task, tenant=tenant, right="infer", field=field
        )
        reference = Reference(entry.tenant, entry.task, version=entry.version, alias=None)
        with scoped(connection, entry.tenant):
            row = resolve(connection, reference, field=field)
        _check_labels(entry, row, field)
        first, known = first or row, known or row.base_fingerprint
        if row.width != first.width or row.base_fingerprint not in (None, known):
            raise InvalidError(
                f"The question {shown(entry.question)} has a version of another base model than those before "
                "it; a pack has one base.",
                field=field,
                code="base_mismatch",
            )
        found.append((entry, row.id))
    return found


def entry_field(question: str) -> str:
    """The dotted path of a question in a pack. An id with unusual characters appears as `?`."""
    plain = question.isascii() and question.replace("-", "_").replace("_", "a").isalnum()
    return f"questions.{question}" if plain and len(question) <= 64 else "questions.?"


def _check_id(question: object) -> None:
    if not isinstance(question, str) or not 1 <= len(question) <= MAX_ID_CHARACTERS:
        raise InvalidError(
            f"A question's id is a text of 1 to {MAX_ID_CHARACTERS} characters.", field="questions"
        )
    if not is_unicode(question) or has_control_characters(question):
        raise InvalidError(
            f"The id {shown(question)} has control characters or lone surrogates.", field="questions"
        )


def _check_values(entry: PackEntry, field: str) -> None:
    labels: Mapping[str, str] = entry.labels
    if len(labels) > MAX_VALUES:
        raise InvalidError(f"A question has at most {MAX_VALUES} values, not {len(labels)}.", field=field)
    for text in (*labels, *labels.values()):
        if not isinstance(text, str) or not 1 <= len(text) <= 512 or not is_unicode(text):
            raise InvalidError(
                f"The question {shown(entry.question)} maps {shown(text)}: values and labels are texts of 1 "
                "to 512 characters.",
                field=field,
            )
    if len(set(labels.values())) != len(labels):
        raise InvalidError(
            f"The question {shown(entry.question)} maps two values to one label, which leaves no choice "
            "between them: give each its own.",
            field=field,
        )


def _check_labels(entry: PackEntry, row: Row[Any], field: str) -> None:
    whose = f"{entry.tenant}/{entry.task}@{entry.version}"
    if len(row.labels) < 2:
        raise InvalidError(
            f"The question {shown(entry.question)} names {whose}, which has no labels to choose from: name a "
            "version of a labelled task.",
            field=field,
        )
    for value, label in entry.labels.items():
        if label not in row.labels:
            raise InvalidError(
                f"The question {shown(entry.question)} maps {shown(value)} to {shown(label)}, which is no "
                f"label of {whose}.",
                field=f"{field}.values",
            )
