"""GLUE: rows as tensorflow-datasets reads them, in the forms that T5 gives them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from chorus.datasets.dataset import Dataset, Row
from chorus.datasets.official import OfficialFile

OFFICIAL = "https://gluebenchmark.com/tasks"
_FILES = {"train": ("train.tsv",), "dev": ("dev.tsv",)}
_COLA_COLUMNS = ("source", "label", "authors_label", "sentence")


def _columns(
    fields: Mapping[str, str], label: str, labels: Sequence[str], names: Sequence[str] = ()
) -> Callable[[OfficialFile], Iterator[Row]]:
    """Rows of a TSV file.

    Args:
        fields: column of each field.
        label: column of the label: its name, or its number.
        names: of all columns, if the file has no header.
    """

    def rows(file: OfficialFile) -> Iterator[Row]:
        for number, row in file.table((*fields.values(), label), names):
            said = row[label]
            if said not in labels:
                if not said.isdecimal() or int(said) >= len(labels):
                    known = ", ".join(labels)
                    file.refuse(f"{label!r} is {ascii(said)[:40]}, and the set has {known}", number)
                said = labels[int(said)]
            yield {**{field: row[column] for field, column in fields.items()}, "label": said}

    return rows


def _stsb(file: OfficialFile) -> Iterator[Row]:
    for number, row in file.table(("sentence1", "sentence2", "score")):
        try:
            label = fifths(float(row["score"]))
        except (ValueError, OverflowError):
            file.refuse(f"'score' is {ascii(row['score'])[:40]}, which is no number", number)
        yield {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "label": label}


def fifths(score: float) -> str:
    """A score rounded to 0.2, as T5 writes it: half to even, in single precision."""
    rounded = round(_single(_single(score) * 5))
    return f"{_single(rounded / 5):.1f}"


def _single(number: float) -> float:
    found: float = struct.unpack("f", struct.pack("f", number))[0]
    return found


def _glue(
    name: str,
    folder: str,
    fields: Mapping[str, str],
    label: str,
    labels: Sequence[str],
    metrics: Sequence[str] = ("accuracy",),
    files: Mapping[str, Sequence[str]] = _FILES,
    names: Sequence[str] = (),
) -> Dataset:
    return Dataset(
        f"glue/{name}",
        folder,
        files,
        OFFICIAL,
        _columns(fields, label, labels, names),
        " ".join(f"{field}: {{{field}}}" for field in fields),
        metrics,
        prefix=name,
        labels=labels,
    )


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_ENTAILMENT = ("entailment", "not_entailment")
_MNLI: dict[str, Any] = {
    "train": ("train.tsv",),
    "dev": ("dev_matched.tsv",),
    "mismatched": ("dev_mismatched.tsv",),
}

GLUE = (
    _glue(
        "cola",
        "CoLA",
        _same("sentence"),
        "label",
        ("unacceptable", "acceptable"),
        ("matthews",),
        names=_COLA_COLUMNS,
    ),
    _glue("sst2", "SST-2", _same("sentence"), "label", ("negative", "positive")),
    _glue(
        "mrpc",
        "MRPC",
        {"sentence1": "#1 String", "sentence2": "#2 String"},
        "Quality",
        ("not_equivalent", "equivalent"),
        ("f1_binary", "accuracy"),
    ),
    _glue(
        "qqp",
        "QQP",
        _same("question1", "question2"),
        "is_duplicate",
        ("not_duplicate", "duplicate"),
        ("f1_binary", "accuracy"),
    ),
    Dataset(
        "glue/stsb",
        "STS-B",
        _FILES,
        OFFICIAL,
        _stsb,
        "sentence1: {sentence1} sentence2: {sentence2}",
        ("pearson", "spearman"),
        prefix="stsb",
    ),
    _glue(
        "mnli",
        "MNLI",
        {"hypothesis": "sentence2", "premise": "sentence1"},
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        files=_MNLI,
    ),
    _glue("qnli", "QNLI", _same("question", "sentence"), "label", _ENTAILMENT),
    _glue("rte", "RTE", _same("sentence1", "sentence2"), "label", _ENTAILMENT),
)
