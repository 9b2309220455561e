"""Where a prompt's examples come from: the `data` of a job document."""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from pydantic import Field, model_serializer

from server.tuning.document.fields import DocumentModel, Paragraph, TextList, refuse
from server.urls import split_http_url

Format = Literal["jsonl", "csv", "tsv", "parquet"]
SourceKind = Literal["file", "path", "url"]
KINDS: tuple[SourceKind, ...] = get_args(SourceKind)

_FILE = re.compile(r"file-[a-z0-9]{1,64}", re.ASCII)


class DataSource(DocumentModel):
    """One dataset file: one of the three."""

    file: Paragraph | None = Field(None, description="Id of an uploaded file.")
    path: Paragraph | None = Field(None, description="On the server, where the operator allows it.")
    url: Paragraph | None = Field(
        None,
        description="Where the operator allows it: http or https, with a host and no user, in visible ASCII "
        "characters.",
    )

    @property
    def kind(self) -> SourceKind:
        """Which of the three it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def value(self) -> str:
        """The id, path or URL."""
        value: str = getattr(self, self.kind)
        return value

    @model_serializer
    def _written(self) -> dict[str, Any]:
        return {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind) is not None}

    def check(self, path: str) -> None:
        """Is it one of the three, and of its form? Raises InvalidInputError below `path`."""
        if len(self.to_json()) != 1:
            refuse(
                'must be one of {"file": "file-..."} (an uploaded file), {"path": "..."} and {"url": "..."} '
                "(where the operator allows them)",
                path,
            )
        if self.file is not None and not _FILE.fullmatch(self.file):
            refuse("is not the id of a file; upload it first, the answer has its id", f"{path}.file")
        if self.url is not None:
            try:
                split_http_url(self.url)
            except ValueError as error:
                refuse(str(error), f"{path}.url")


class DataDocument(DocumentModel):
    """The splits of one prompt."""

    train: DataSource | None = Field(None, description="Learned from. Required.")
    selection: DataSource | None = Field(
        None, description="Chooses the checkpoint; cut from train when left out."
    )
    report: DataSource | None = Field(None, description="Measured once, at the end.")
    format: Format | None = Field(None, description="Of all three files; by each one's ending when left out.")
    column_names: TextList = Field(default=(), description="Of CSV and TSV files without a header.")
    selection_rows: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Rows cut from train where there is no `selection`; a tenth, at most 500, when left out; "
        "0 cuts none, and the last values are kept.",
    )
    selection_from: Literal["train", "report"] = Field(
        "train",
        description="`report` chooses on the split that is reported, as the paper's authors did: what is "
        "reported then flatters, and the lineage says so.",
    )

    @property
    def splits(self) -> dict[str, DataSource]:
        """The source of each split that has one, train first."""
        named = {"train": self.train, "selection": self.selection, "report": self.report}
        return {name: source for name, source in named.items() if source is not None}

    def check(self, path: str) -> None:
        """Is there a train split, and do the others go with it? Raises InvalidInputError below `path`."""
        if self.train is None:
            refuse("is required", f"{path}.train", code="missing_field")
        for name, source in self.splits.items():
            source.check(f"{path}.{name}")
        if self.selection_from == "report" and self.report is None:
            refuse("is 'report', and there is no report split", f"{path}.selection_from")
        if self.selection_from == "report" and self.selection is not None:
            refuse("is 'report', and there is a selection split; give one of them", f"{path}.selection_from")
        cut = self.selection is None and self.selection_from == "train"
        if self.selection_rows is not None and not cut:
            refuse("is for a selection split that is cut from train; leave it out", f"{path}.selection_rows")
        if len(set(self.column_names)) != len(self.column_names):
            refuse("names a column twice", f"{path}.column_names")
        if self.column_names and self.format in ("jsonl", "parquet"):
            refuse("is for CSV and TSV files without a header", f"{path}.column_names")
