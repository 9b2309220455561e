"""Writes a dataset's rows as JSON Lines, with documents that `chorus tune` and `chorus evaluate` take."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from chorus.datasets.dataset import Dataset, Row
from chorus.datasets.official import OfficialFile, Place, find, root_of
from chorus.datasets.registry import DATASETS
from chorus.errors import InvalidArgumentError
from chorus.saving import whole_folder

JOB, EVALUATION = "job.json", "evaluation.json"
TRAIN, DEV = "train", "dev"
_MEASURED = ("labels", "metrics", "metric_columns")


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """One file that was written.

    Attributes:
        name: `train`, `dev`, or what the file is called otherwise.
        rows: read from the official files.
        examples: rows of the file: of WSC's train split only those with the right referent, of ReCoRD's one
            for each answer.
        labels: how many of the rows have each label; empty for free text.
    """

    name: str
    rows: int
    examples: int
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written.

    Attributes:
        task: that the job document names.
        splits: train first, if there is one.
        warnings: what was left out.
    """

    dataset: str
    folder: Path
    task: str
    splits: Sequence[PreparedSplit]
    warnings: Sequence[str]


def prepare(
    name: str, source: str | os.PathLike[str], folder: str | os.PathLike[str], *, task: str | None = None
) -> Prepared:
    """Read a dataset's official files and write rows and documents into a new folder, whole or not at all.

    Args:
        name: one of `DATASETS`, such as `superglue/boolq`.
        source: the folder or the zip with the official files.
        folder: made here; it must not exist.
        task: the task to tune; by default the dataset's name with `-` in place of `/`.

    Raises:
        InvalidArgumentError: there is no such dataset, a file is missing or not as it is published, or the
            folder exists.
    """
    dataset = DATASETS.get(name)
    if dataset is None:
        known = ", ".join(DATASETS)
        raise InvalidArgumentError(f"There is no dataset {name!r}; there are {known}.", field="dataset")
    root = root_of(Path(source), dataset.folder, dataset.official)
    files = _files(dataset, root)
    named, warnings = task or name.replace("/", "-"), list[str]()
    with whole_folder(Path(folder)) as made:
        splits = [_write(dataset, made, split, places, warnings) for split, places in files.items()]
        _write_documents(dataset, made, named, splits)
    return Prepared(name, Path(folder), named, splits, warnings)


def _files(dataset: Dataset, root: Place) -> dict[str, list[Place]]:
    """The files of each split."""
    if "*" not in dataset.files:
        return {
            split: [find(root, names, dataset.folder, dataset.official)]
            for split, names in dataset.files.items()
        }
    found = {_stem(place): [place] for place in _matching(root, dataset)}
    trained = root / TRAIN
    if trained.is_dir():
        found = {TRAIN: _matching(trained, dataset), **found}
    if not any(found.values()):
        find(root, dataset.files["*"], dataset.folder, dataset.official)
    return {split: places for split, places in found.items() if places}


def _matching(root: Place, dataset: Dataset) -> list[Place]:
    endings = tuple(name.removeprefix("*") for name in dataset.files["*"])
    found = (each for each in root.iterdir() if each.is_file() and each.name.endswith(endings))
    return sorted(found, key=lambda each: each.name)


def _stem(place: Place) -> str:
    return place.name.removesuffix(".gz").removesuffix(".jsonl")


def _write(
    dataset: Dataset, folder: Path, split: str, places: Sequence[Place], warnings: list[str]
) -> PreparedSplit:
    rows = examples = 0
    labels: Counter[str] = Counter()
    with (folder / f"{split}.jsonl").open("wb") as written:
        for row in _whole_rows(dataset, places, warnings):
            rows += 1
            if dataset.counted is not None:
                labels[str(row[dataset.counted])] += 1
            for example in dataset.trains(row) if split == TRAIN else (row,):
                examples += 1
                _write_line(written, example)
    if not examples:
        raise InvalidArgumentError(f"{places[0]}: no row could be read.", field="source")
    named = [label for label in dataset.labels if label in labels] or sorted(labels)
    return PreparedSplit(split, rows, examples, {label: labels[label] for label in named})


def _whole_rows(dataset: Dataset, places: Sequence[Place], warnings: list[str]) -> Iterator[Row]:
    """The rows of some files, without those that have nothing to read or to say."""
    fields = (*re.findall(r"{(\w+)}", dataset.template), "label")
    for place in places:
        blank = 0
        for row in dataset.rows(OfficialFile(place, warnings)):
            if all(_says_something(row[name]) for name in fields):
                yield row
            else:
                blank += 1
        if blank:
            warnings.append(f"{place.name}: {blank} rows with an empty text were left out; T5 keeps them")


def _says_something(value: str | list[str]) -> bool:
    return all(text.strip() for text in (value if isinstance(value, list) else [value]))


def _write_line(file: BinaryIO, row: Row) -> None:
    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _write_documents(dataset: Dataset, folder: Path, task: str, splits: Sequence[PreparedSplit]) -> None:
    names = [split.name for split in splits]
    document = dataset.document
    if TRAIN in names:
        data = {TRAIN: f"{TRAIN}.jsonl"} | ({"test": f"{DEV}.jsonl"} if DEV in names else {})
        _write_json(folder / JOB, {"task": task, "data": data, **document})
    asked = {name: value for name, value in document.items() if name in _MEASURED}
    base = {"template": dataset.template}
    if dataset.normalizer is not None:
        base["normalizer"] = dataset.normalizer
    _write_json(folder / EVALUATION, {"subjects": [{"base": base}], **asked})


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
