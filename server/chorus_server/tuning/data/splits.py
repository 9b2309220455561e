"""Splits of a dataset: every row is checked before anything runs, and a validation split can be cut."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chorus_server.errors import InvalidInputError
from chorus_server.quality.column_metrics import GROUP
from chorus_server.tuning.data.columns import text_row
from chorus_server.tuning.data.conversations import HISTORY, SYSTEM, is_conversation
from chorus_server.tuning.data.examples import TextRow, row_numbers
from chorus_server.tuning.data.readers import ReadOptions, file_digest, read_rows
from chorus_server.tuning.document.prompt import PromptDocument
from prompts_store.digests import canonical_json
from prompts_store.tasks.template import parse_template

_SHOWN_LABELS = 5
_ROWS_A_LOOK = 1_000


@dataclass(frozen=True)
class Split:
    """One split, checked.

    Attributes:
        name: `train`, `validation`, `test`.
        rows: at least one.
        warnings: about what is odd but allowed.
        sha256: of the file that it came from.
    """

    name: str
    rows: tuple[TextRow, ...]
    warnings: tuple[str, ...] = ()
    sha256: str = ""


def load_split(
    name: str,
    path: Path,
    prompt: PromptDocument,
    *,
    labels: Sequence[str] = (),
    options: ReadOptions | None = None,
    interrupt: Callable[[], None] = lambda: None,
) -> Split:
    """Read and check one split.

    Args:
        labels: of a classification task, where every answer must be one of them; empty for free text.
        interrupt: called every thousand rows; what it raises ends the reading.

    Raises:
        InvalidInputError: see `read_rows`, `text_row` and `check_rows`.
    """
    field = f"data.{name}"
    rows: list[TextRow] = []
    odd: list[str] = []
    cut = prompt.data.cuts_validation and prompt.data.validation_rows != 0
    measured = name != "train" or cut
    unread = dict.fromkeys({SYSTEM, HISTORY} - _columns_of(prompt), 0)
    for row, record in read_rows(path, options, field=field, warn=odd.append):
        if len(rows) % _ROWS_A_LOOK == 0:
            interrupt()
        rows.append(text_row(prompt, row, record, field=field, measured=measured))
        for column in unread:
            unread[column] += bool(is_conversation(record) and record[column])
    odd += [
        f"{count} rows of the {name} split have a {column} that the template does not use; it can take "
        f"{{{column}}}"
        for column, count in sorted(unread.items())
        if count
    ]
    warnings = (*odd, *check_rows(name, rows, labels))
    return Split(name, tuple(rows), warnings, file_digest(path))


def check_rows(name: str, rows: Sequence[TextRow], labels: Sequence[str] = ()) -> tuple[str, ...]:
    """Refuse rows that cannot be trained on, and return warnings about odd ones.

    Raises:
        InvalidInputError: `empty_split`; `unknown_label`, with the row; `one_class`: every answer of the
            train split is the same label.
    """
    field = f"data.{name}"
    if not rows:
        raise InvalidInputError(f"the {name} split has no rows", field=field, code="empty_split")
    counts = Counter(row.answers[0] for row in rows)
    if labels:
        _check_labels(rows, labels, field)
        if name == "train" and len(counts) == 1:
            label = ascii(rows[0].answers[0])[:60]
            message = f"every row of the train split has the label {label}; there is nothing to learn"
            raise InvalidInputError(message, field=field, code="one_class")
    return (
        *_missing_labels(name, counts, labels),
        *_same_answer(name, rows, counts, labels),
        *_duplicates(name, rows),
    )


def cut_from_train(train: Split, rows: int, seed: int) -> tuple[Split, Split]:
    """Move at least `rows` rows from the train split to a validation split: `(train, validation)`.

    The seed and each row's content decide which rows, so rows of the same content stay together, and no copy
    of a validation row is trained on. Rows of one group (see `column_metrics.py`) stay together too.

    Raises:
        InvalidInputError: `empty_split`: one of the two would be empty.
    """
    if not 1 <= rows < len(train.rows):
        message = f"cannot take {rows} of the {len(train.rows)} train rows for validation"
        raise InvalidInputError(message, field="data.validation", code="empty_split")
    keys = [_content_key(row, seed) for row in train.rows]
    last = sorted(keys)[rows - 1]
    taken = tuple(row for row, key in zip(train.rows, keys, strict=True) if key <= last)
    kept = tuple(row for row, key in zip(train.rows, keys, strict=True) if key > last)
    if not kept:
        message = "every row of the train split has the same content; nothing is left to train on"
        raise InvalidInputError(message, field="data.train", code="empty_split")
    return Split("train", kept, train.warnings, train.sha256), Split("validation", taken, (), train.sha256)


def overlap_warnings(train: Split, others: Sequence[Split]) -> tuple[str, ...]:
    """Warnings about rows of other splits that are in train too: metrics on them flatter."""
    trained = {(row.text, row.answers[0]) for row in train.rows}
    warnings = []
    for split in others:
        seen = [row.row for row in split.rows if (row.text, row.answers[0]) in trained]
        if seen:
            warnings.append(
                f"{len(seen)} rows of the {split.name} split are in train too (rows {row_numbers(seen)})"
            )
    return tuple(warnings)


def _columns_of(prompt: PromptDocument) -> set[str]:
    """The columns that the prompt's template reads."""
    return {prompt.columns.get(name, name) for name in parse_template(prompt.template).fields}


def _content_key(row: TextRow, seed: int) -> bytes:
    if row.columns is not None and GROUP in row.columns:
        return hashlib.sha256(canonical_json([seed, row.columns[GROUP]])).digest()
    return hashlib.sha256(canonical_json([seed, row.text, list(row.answers)])).digest()


def _check_labels(rows: Sequence[TextRow], labels: Sequence[str], field: str) -> None:
    known = set(labels)
    for row in rows:
        for answer in row.answers:
            if answer not in known:
                some = ", ".join(ascii(label)[1:-1][:30] for label in labels[:10])
                message = f"row {row.row}: the answer {ascii(answer)[:60]} is none of the labels ({some})"
                raise InvalidInputError(message, field=field, code="unknown_label")


def _missing_labels(name: str, counts: Mapping[str, int], labels: Sequence[str]) -> tuple[str, ...]:
    missing = [label for label in labels if label not in counts]
    if not missing:
        return ()
    some = ", ".join(ascii(label)[1:-1][:30] for label in missing[:_SHOWN_LABELS])
    return (f"the {name} split has no row with the label{'s' * (len(missing) > 1)} {some}",)


def _same_answer(
    name: str, rows: Sequence[TextRow], counts: Mapping[str, int], labels: Sequence[str]
) -> tuple[str, ...]:
    if labels or name != "train" or len(counts) > 1 or len(rows) < 2:
        return ()
    answer = ascii(rows[0].answers[0])[:60]
    return (f"every row of the train split has the answer {answer}; there is little to learn",)


def _duplicates(name: str, rows: Sequence[TextRow]) -> tuple[str, ...]:
    first: dict[tuple[str, str], int] = {}
    accepted: dict[str, tuple[str, ...]] = {}
    copies, contradictions = [], []
    for row in rows:
        key = (row.text, row.answers[0])
        if key in first:
            copies.append(row.row)
        elif row.answers[0] not in accepted.get(row.text, row.answers):
            contradictions.append(row.row)
        first.setdefault(key, row.row)
        accepted.setdefault(row.text, row.answers)
    warnings = []
    for found, text in (
        (copies, "are copies of earlier ones"),
        (contradictions, "have the text of an earlier row and another answer"),
    ):
        if found:
            warnings.append(f"{len(found)} rows of the {name} split {text} (rows {row_numbers(found)})")
    return tuple(warnings)
