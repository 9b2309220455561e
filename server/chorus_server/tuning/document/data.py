"""Where a prompt's examples come from: the `data` of a job document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from chorus_server.tuning.document.earlier_names import DATA_FIELDS, split_name
from chorus_server.tuning.document.fields import DocumentModel, Paragraph, TextList, refuse
from chorus_server.urls import split_http_url

Format = Literal["jsonl", "csv", "tsv", "parquet"]
SourceKind = Literal["file", "path", "url"]
KINDS: tuple[SourceKind, ...] = get_args(SourceKind)

_FILE = re.compile(r"file-[a-z0-9]{1,64}", re.ASCII)


class DataSource(DocumentModel):
    """One dataset file, named in one of three ways."""

    file: Paragraph | None = Field(None, description="Id of an uploaded file.")
    path: Paragraph | None = Field(None, description="Path on the server, if the operator allows it.")
    url: Paragraph | None = Field(
        None,
        description="URL, if the operator allows it: http or https, with a host and no user, in visible "
        "ASCII characters.",
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
        """Refuse all but exactly one well-formed source. Raises InvalidInputError below `path`."""
        if len(self.to_json()) != 1:
            refuse(
                'must be one of {"file": "file-..."} (an uploaded file), {"path": "..."} and {"url": "..."} '
                "(where the operator allows them)",
                path,
            )
        if self.file is not None and not _FILE.fullmatch(self.file):
            refuse(
                "is not the id of a file: upload the file first, and send the id in the answer",
                f"{path}.file",
            )
        if self.url is not None:
            try:
                split_http_url(self.url)
            except ValueError as error:
                refuse(str(error), f"{path}.url")


class DataDocument(DocumentModel):
    """The splits of one prompt."""

    train: DataSource | None = Field(None, description="The split to learn from. Required.")
    validation: DataSource | None = Field(
        None, description="The split that chooses the checkpoint. When left out, it is cut from train."
    )
    test: DataSource | None = Field(None, description="The split that is measured once, at the end.")
    format: Format | None = Field(
        None, description="Format of all three files. When left out, each file's ending decides."
    )
    column_names: TextList = Field(
        default=(), description="Names of the columns of CSV and TSV files without a header."
    )
    validation_rows: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Rows to cut from train if there is no `validation`. When left out: a tenth, at most "
        "500. With 0, none are cut, and the last values are kept.",
    )
    validation_from: Literal["train", "test"] = Field(
        "train",
        description="`test` chooses the checkpoint on the test split, as the paper's authors did. What is "
        "measured there then flatters, and the lineage says so.",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, value: Any) -> Any:
        """Takes fields by their earlier names too."""
        if not isinstance(value, Mapping):
            return value
        found = dict(value)
        for earlier, name in DATA_FIELDS.items():
            if (given := found.pop(earlier, None)) is None:
                continue
            if found.get(name) is not None:
                raise PydanticCustomError(
                    "given_twice",
                    "{earlier} is the earlier name of {name}: give one of them",
                    {"earlier": earlier, "name": name, "field": name},
                )
            found[name] = given
        if "validation_from" in found:
            found["validation_from"] = split_name(found["validation_from"])
        return found

    @property
    def splits(self) -> dict[str, DataSource]:
        """The source of each split that has one, train first."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: source for name, source in named.items() if source is not None}

    @property
    def cuts_validation(self) -> bool:
        """Whether the validation split is cut from train."""
        return self.validation is None and self.validation_from == "train"

    def check(self, path: str) -> None:
        """Refuse splits that do not go together. Raises InvalidInputError below `path`."""
        if self.train is None:
            refuse("is required", f"{path}.train", code="missing_field")
        for name, source in self.splits.items():
            source.check(f"{path}.{name}")
        if self.validation_from == "test" and self.test is None:
            refuse("is 'test', but there is no test split", f"{path}.validation_from")
        if self.validation_from == "test" and self.validation is not None:
            refuse("is 'test', but there is a validation split; give one of them", f"{path}.validation_from")
        if self.validation_rows is not None and not self.cuts_validation:
            refuse(
                "is for a validation split that is cut from train; leave it out", f"{path}.validation_rows"
            )
        if len(set(self.column_names)) != len(self.column_names):
            refuse("names a column twice", f"{path}.column_names")
        if self.column_names and self.format in ("jsonl", "parquet"):
            refuse("is for CSV and TSV files without a header", f"{path}.column_names")
