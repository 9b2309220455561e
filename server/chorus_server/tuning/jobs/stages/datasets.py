"""One prompt's splits: fetched, read, checked and cut, with warnings and the facts for its lineage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.readers import ReadOptions
from chorus_server.tuning.data.splits import Split, check_rows, cut_from_train, load_split, overlap_warnings
from chorus_server.tuning.document.data import DataDocument
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.sources import fetched

CUT_FROM_TRAIN = "cut from train"
"""In `chosen_on`."""
_CUT_SHARE, _CUT_MOST = 10, 500


@dataclass(frozen=True, slots=True)
class Dataset:
    """The splits of one prompt.

    Attributes:
        validation, test: None if there is no such split.
        warnings: about what is odd but allowed.
        lineage: `data`: digest, number of rows and source of each split; `chosen_on`: the split that chooses
            the checkpoint.
    """

    train: Split
    validation: Split | None
    test: Split | None
    warnings: tuple[str, ...]
    lineage: dict[str, Any]


def load_dataset(attempt: Attempt, prompt: PromptDocument, seed: int, path: str) -> Dataset:
    """Read all data that one prompt is trained and measured on.

    Args:
        seed: the job's; it decides which train rows are cut for validation.
        path: dotted path of the prompt's `data`, for errors.

    Raises:
        InvalidInputError: see `fetched`, `load_split` and `cut_from_train`.
        StoreError: an uploaded file is not there.
    """
    data = prompt.data
    read = {name: _read(attempt, prompt, name, path) for name in data.splits}
    train, test = read["train"], read.get("test")
    validation, chosen_on = read.get("validation"), "validation"
    if validation is None and data.validation_from == "test":
        validation, chosen_on = test, "test"
    elif validation is None:
        rows = _rows_to_cut(data, len(train.rows))
        chosen_on = "none"
        if rows:
            train, validation = _cut(train, rows, seed, prompt, path)
            chosen_on = CUT_FROM_TRAIN
    others = [split for split in (validation, test) if split is not None]
    unique = list({id(split): split for split in others}.values())
    warnings = [*(w for split in read.values() for w in split.warnings), *overlap_warnings(train, unique)]
    splits = {"train": train, "validation": validation, "test": test}
    facts = {name: _facts(name, split, data) for name, split in splits.items() if split is not None}
    lineage = {"data": facts, "chosen_on": chosen_on}
    return Dataset(train, validation, test, tuple(warnings), lineage)


def _read(attempt: Attempt, prompt: PromptDocument, name: str, path: str) -> Split:
    data = prompt.data
    try:
        with fetched(attempt, data.splits[name], f"{path}.{name}") as (file, file_name):
            options = ReadOptions(
                format=data.format,
                column_names=data.column_names or None,
                max_row_bytes=attempt.config.max_row_bytes,
                max_bytes=attempt.config.max_file_bytes,
                name=file_name,
            )
            interrupt = attempt.interrupt
            return load_split(name, file, prompt, labels=prompt.labels, options=options, interrupt=interrupt)
    except InvalidInputError as error:
        field = (error.field or "").replace("data.", f"{path}.", 1)
        raise InvalidInputError(error.message, field=field or path, code=error.code) from error


def _rows_to_cut(data: DataDocument, rows: int) -> int:
    if data.validation_rows is not None:
        return data.validation_rows
    return max(1, min(rows // _CUT_SHARE, _CUT_MOST))


def _cut(train: Split, rows: int, seed: int, prompt: PromptDocument, path: str) -> tuple[Split, Split]:
    try:
        kept, taken = cut_from_train(train, rows, seed)
        check_rows("train", kept.rows, prompt.labels)
    except InvalidInputError as error:
        message = (
            f"{error.message}; give a validation split, or set data.validation_rows (0 keeps the last values)"
        )
        field = f"{path}.validation_rows"
        raise InvalidInputError(message, field=field, code=error.code) from error
    return kept, replace(taken, name="validation")


def _facts(name: str, split: Split, data: DataDocument) -> dict[str, Any]:
    source = data.splits.get(name)
    origin = {"source": source.to_json()} if source else {"from": data.validation_from}
    return {"sha256": split.sha256, "rows": len(split.rows), **origin}
