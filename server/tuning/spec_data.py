"""Where a prompt's examples come from: the `data` of a job document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from server.tuning.data.readers import FORMATS, Format
from server.tuning.document import Document, checked_text, refuse
from server.urls import split_http_url

Kind = Literal["file", "path", "url"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SelectionFrom = Literal["train", "report"]

MAX_SELECTION_ROWS = 1_000_000
_DATA_FIELDS = (
    "train",
    "selection",
    "report",
    "format",
    "column_names",
    "selection_rows",
    "selection_from",
)
_FILE = re.compile(r"file-[a-z0-9]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Source:
    """One dataset file.

    Attributes:
        kind: `file`, one that was uploaded, by its id; `path` and `url`, where the operator allows them.
        value: the id, path or URL.
    """

    kind: Kind
    value: str

    def to_json(self) -> dict[str, str]:
        """`{"file": "file-..."}`."""
        return {self.kind: self.value}


@dataclass(frozen=True, slots=True)
class DataSpec:
    """The splits of one prompt.

    Attributes:
        train: learned from.
        selection: chooses the checkpoint; None cuts it from train, or takes report where `selection_from`
            says so.
        report: measured once, at the end; None measures nothing more.
        format: of all three files; None goes by each one's ending.
        column_names: of CSV and TSV files without a header.
        selection_rows: how many rows are cut from train; None is a tenth, at most 500; 0 cuts none, and the
            last values are kept.
        selection_from: `report` chooses on the split that is reported, as the paper's authors did; what is
            reported then flatters, and the lineage says so.
    """

    train: Source
    selection: Source | None = None
    report: Source | None = None
    format: Format | None = None
    column_names: tuple[str, ...] = ()
    selection_rows: int | None = None
    selection_from: SelectionFrom = "train"

    @property
    def splits(self) -> dict[str, Source]:
        """The source of each split that has one, train first."""
        named = {"train": self.train, "selection": self.selection, "report": self.report}
        return {name: source for name, source in named.items() if source is not None}

    def to_json(self) -> dict[str, Any]:
        """All fields, as plain JSON values."""
        return {
            "train": self.train.to_json(),
            "selection": self.selection.to_json() if self.selection else None,
            "report": self.report.to_json() if self.report else None,
            "format": self.format,
            "column_names": list(self.column_names),
            "selection_rows": self.selection_rows,
            "selection_from": self.selection_from,
        }


def parse_data(value: Any, path: str) -> DataSpec:
    """The `data` of a prompt.

    Raises:
        InvalidInputError: see `Document`; or splits that do not go together.
    """
    if value is None:
        refuse("is required: name at least data.train", path, code="missing_field")
    document = Document(value, path, _DATA_FIELDS)
    train = _source(document, "train")
    if train is None:
        refuse("is required", document.at("train"), code="missing_field")
    spec = DataSpec(
        train=train,
        selection=_source(document, "selection"),
        report=_source(document, "report"),
        format=cast(Format | None, document.choice("format", FORMATS, None)),
        column_names=document.texts("column_names"),
        selection_rows=document.whole("selection_rows", None, 0, MAX_SELECTION_ROWS),
        selection_from=cast(
            SelectionFrom, document.choice("selection_from", get_args(SelectionFrom), "train")
        ),
    )
    _check_together(spec, document)
    return spec


def _check_together(spec: DataSpec, document: Document) -> None:
    if spec.selection_from == "report":
        if spec.report is None:
            refuse("is 'report', and there is no report split", document.at("selection_from"))
        if spec.selection is not None:
            refuse(
                "is 'report', and there is a selection split; give one of them", document.at("selection_from")
            )
    cut = spec.selection is None and spec.selection_from == "train"
    if spec.selection_rows is not None and not cut:
        refuse("is for a selection split that is cut from train; leave it out", document.at("selection_rows"))
    if len(set(spec.column_names)) != len(spec.column_names):
        refuse("names a column twice", document.at("column_names"))
    if spec.column_names and spec.format in ("jsonl", "parquet"):
        refuse("is for CSV and TSV files without a header", document.at("column_names"))


def _source(document: Document, name: str) -> Source | None:
    value, path = document.get(name), document.at(name)
    if value is None:
        return None
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in KINDS:
        refuse(
            'must be one of {"file": "file-..."} (an uploaded file), {"path": "..."} and {"url": "..."} '
            "(where the operator allows them)",
            path,
        )
    kind = cast(Kind, next(iter(value)))
    text = checked_text(value[kind], f"{path}.{kind}", most=2_048)
    if kind == "file" and not _FILE.fullmatch(text):
        refuse("is not the id of a file; upload it first, the answer has its id", f"{path}.file")
    if kind == "url":
        try:
            split_http_url(text)
        except ValueError as error:
            refuse(str(error), f"{path}.url")
    return Source(kind, text)
