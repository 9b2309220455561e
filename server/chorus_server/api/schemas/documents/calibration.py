"""The document of a calibration: the route's body, and what the store keeps of it."""

from __future__ import annotations

from pydantic import Field

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.data import Format
from chorus_server.tuning.document.fields import DocumentModel, ShortText, TextList, TextMap, refuse
from chorus_server.tuning.document.prompt import PromptDocument
from prompts_store.errors import InvalidError
from prompts_store.tasks.labels import check_labels
from prompts_store.tasks.template import parse_template


class CalibrationDocument(DocumentModel):
    """The rows that a version is calibrated on: their answers are known, and no prompt learned from them."""

    file: ShortText = Field(
        default_factory=str, description="Id of an uploaded file with 50 rows or more. Required."
    )
    format: Format | None = Field(None, description="Format of the file. When left out, its ending decides.")
    column_names: TextList = Field(
        default=(), description="Names of the columns of a CSV or TSV file without a header."
    )
    columns: TextMap = Field(
        default_factory=dict,
        description="Column of each field of the version's template whose name differs from its column's.",
    )
    target: ShortText = Field("label", description="Column of the answer.")
    target_texts: TextMap = Field(
        default_factory=dict, description="Label for each value of that column, such as `negative` for `0`."
    )
    labels: TextList = Field(
        default=(), description="The labels to calibrate. When left out: the version's own."
    )
    prior: bool | None = Field(
        None,
        description="Whether to fit a prior a label beside the temperature. When left out: yes, as it "
        "measured better.",
    )

    def completed(self, template: str, labels: tuple[str, ...]) -> CalibrationDocument:
        """The document with the version's labels, if it has none of its own.

        Args:
            template, labels: the version's.

        Raises:
            InvalidInputError: a field is missing, or values do not go together.
        """
        if not self.file:
            refuse("is required: the id of an uploaded file", "file", code="missing_field")
        if len(set(self.column_names)) != len(self.column_names):
            refuse("names a column twice", "column_names")
        found = self.labels or labels
        if len(found) < 2:
            refuse("must be two or more: the version has none of its own", "labels", code="missing_field")
        try:
            check_labels(found)
        except InvalidError as error:
            raise InvalidInputError(error.message, field=error.field, code=error.code) from error
        for key, text in self.target_texts.items():
            if text not in found:
                refuse("is none of the labels", f"target_texts.{key}", code="unknown_label")
        known = parse_template(template).fields
        for name in self.columns:
            if name not in known:
                message = f"names {ascii(name)[:60]}, and the version's template has {', '.join(known)}"
                refuse(message, "columns")
        return self.model_copy(update={"labels": found})

    def prompt(self, template: str) -> PromptDocument:
        """How tuning reads such a file, for a version with this template."""
        return PromptDocument(
            template=template, columns=self.columns, target=self.target, target_texts=self.target_texts
        )
