"""A task's rows: train, selection (cut from train) and report, fixed by one seed for every run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.tuning.tasks import TASKS, Source, Task
from chorus_server.tuning.data.columns import text_row
from chorus_server.tuning.data.examples import TextRow
from chorus_server.tuning.data.readers import ReadOptions, file_digest, read_rows
from chorus_server.tuning.data.splits import Split, check_rows, cut_from_train
from chorus_server.tuning.document.prompt import PromptDocument

SPLIT_SEED = 20260101


@dataclass(frozen=True)
class Rows:
    """Both wordings of the same rows.

    Attributes:
        train, selection, report: in the tuning template.
        instructed: the report rows, in the same order, as the zero-shot instruction.
        shots: the first rows of train as instructions, for the few-shot baseline.
        digests: SHA-256 of each file.
        warnings: of the library's own checks.
    """

    task: Task
    train: Split
    selection: Split
    report: tuple[TextRow, ...]
    instructed: tuple[TextRow, ...]
    shots: tuple[TextRow, ...]
    digests: dict[str, str]
    warnings: tuple[str, ...]


def with_labels(task: Task, data: Path) -> Task:
    """Banking77's 77 names come from its own file, written with spaces."""
    if task.answers:
        return task
    names = json.loads((data / Path(task.train.path).parent / "categories.json").read_text())
    return replace(task, answers={name: name.replace("_", " ").strip("?").lower() for name in names})


@lru_cache
def load_rows(name: str, data: Path) -> Rows:
    """The rows of a task of `TASKS`."""
    task = with_labels(TASKS[name], data)
    digests = {task.train.path: file_digest(data / task.train.path)}
    train = _records(task, data, task.train)
    if task.report is None:
        report, train = _held_out(train, task.report_rows)
    else:
        report = _records(task, data, task.report)
        digests[task.report.path] = file_digest(data / task.report.path)
        report = _held_out(report, task.report_rows)[0] if task.report_rows else report
    rows = _texts(task, train, task.template)
    warnings = check_rows("train", rows, task.labels)
    kept, selection = cut_from_train(Split("train", rows), task.selection_rows, SPLIT_SEED)
    train_rows = {row.row for row in kept.rows}
    instructed = _texts(task, [record for record in train if record[0] in train_rows], task.instruction)
    return Rows(
        task, kept, selection, _texts(task, report, task.template), _texts(task, report, task.instruction),
        _shots(task, instructed), digests, warnings,
    )  # fmt: skip


Record = tuple[int, dict[str, Any]]


def _records(task: Task, data: Path, source: Source) -> list[Record]:
    if source.kind == "numbered":
        return list(_numbered(data / source.path))
    options = ReadOptions(format=source.kind, column_names=source.columns or None)  # type: ignore[arg-type]
    return list(read_rows(data / source.path, options))


def _numbered(path: Path) -> Iterator[Record]:
    """`3 What ...`: a label, a space, a text. The library reads UTF-8 only, as it says; these are older."""
    for row, line in enumerate(path.read_text(encoding="latin-1").split("\n"), start=1):
        if line.strip():
            label, text = line.split(" ", 1)
            yield row, {"label": label, "text": text.strip()}


def _texts(task: Task, records: Sequence[Record], template: str) -> tuple[TextRow, ...]:
    fields = {name: column for name, column in task.columns.items() if "{" + name + "}" in template}
    prompt = PromptDocument(
        template=template, target=task.target, columns=fields, target_texts=dict(task.answers)
    )
    return tuple(text_row(prompt, row, record, field=task.name) for row, record in records)


def _held_out(records: Sequence[Record], count: int) -> tuple[list[Record], list[Record]]:
    """`count` records by seed and content (copies stay together, so it may be a few more), and the rest."""
    keys = [_key(record) for _, record in records]
    last = sorted(keys)[min(count, len(keys)) - 1]
    pairs = list(zip(records, keys, strict=True))
    return [record for record, key in pairs if key <= last], [record for record, key in pairs if key > last]


def _key(record: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps([SPLIT_SEED, record], sort_keys=True).encode()).digest()


def _shots(task: Task, rows: Sequence[TextRow]) -> tuple[TextRow, ...]:
    """`few_shot` short train rows, labels in turn: the shortest half by seed, so that all of them fit."""
    short = sorted(rows, key=lambda row: len(row.text))[len(rows) // 8 : len(rows) // 2]
    short.sort(key=lambda row: hashlib.sha256(f"{SPLIT_SEED} {row.text}".encode()).digest())
    queues = {label: [row for row in short if row.answers[0] == label] for label in task.labels}
    shots: list[TextRow] = []
    while len(shots) < task.few_shot and any(queues.values()):
        for queue in queues.values():
            if queue and len(shots) < task.few_shot:
                shots.append(queue.pop(0))
    return tuple(shots)
