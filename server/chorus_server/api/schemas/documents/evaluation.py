"""The document of an evaluation: the route's body, and what the store keeps of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_serializer

from chorus_server.errors import InvalidInputError
from chorus_server.quality.column_metrics import check_columns
from chorus_server.quality.metrics import check_metrics
from chorus_server.tuning.document.data import Format
from chorus_server.tuning.document.fields import (
    MAX_ITEMS,
    DocumentModel,
    Paragraph,
    ShortText,
    Text,
    TextList,
    TextMap,
    refuse,
)
from prompts_store.errors import InvalidError
from prompts_store.tasks.labels import check_labels
from prompts_store.tasks.template import parse_template

MOST_SUBJECTS = 8
MOST_EXAMPLES = 32
MOST_ROWS = 1_000_000

EvaluatedBy = Literal["ranked", "calibrated", "greedy"]
"""How answers are made: as tuning measures them, or as the versions' calibrations correct them."""

_OF_LABELS = ("accuracy", "f1_macro", "matthews")
_OF_TEXTS = ("exact_match", "squad_em", "squad_f1")


class BaseSubject(DocumentModel):
    """The base model without a prompt, told in words what to do."""

    instruction: Paragraph | None = Field(None, description="Text before each input.")
    template: Text = Field(
        "{text}", description="How columns become text; only `{name}` fields are possible."
    )
    normalizer: ShortText | None = Field(
        None,
        exclude_if=lambda asked: asked is None,
        description="How the template's fields are rewritten, as a version's setting `normalizer` does.",
    )
    few_shot: int = Field(
        0,
        ge=0,
        le=MOST_EXAMPLES,
        description="Rows of `examples` with their answers that stand between the instruction and the input. "
        "The seed chooses them, from each label in turn.",
    )
    calibrated: bool = Field(
        False,
        exclude_if=lambda asked: not asked,
        description="Take from each label's log probability its mean over the rows of the file, so that a "
        "word that is likely by itself does not win everywhere. It uses no answer, but all inputs at once.",
    )


class EvaluationSubject(DocumentModel):
    """What is evaluated: a task, an ensemble, a question of a pack, the base model, or one answer to all."""

    task: ShortText | None = Field(None, description="Reference of a prompt: `sst2`, `sst2@3`, `sst2@live`.")
    ensemble: ShortText | None = Field(None, description="Reference of an ensemble.")
    pack: ShortText | None = Field(None, description="Reference of a decision pack; with `question`.")
    question: ShortText | None = Field(
        None, description="Id of the pack's question. Its values are the answers and the labels."
    )
    base: BaseSubject | None = Field(None, description="The base model without a prompt.")
    majority: Literal[True] | None = Field(
        None, description="The commonest answer of the file `examples`, to every row."
    )

    @property
    def kind(self) -> Literal["task", "ensemble", "pack", "base", "majority"]:
        """Which of them it is."""
        if self.majority:
            return "majority"
        if self.task is not None:
            return "task"
        if self.pack is not None:
            return "pack"
        return "ensemble" if self.ensemble is not None else "base"

    @property
    def name(self) -> str:
        """What people call it."""
        pack = None if self.pack is None else f"{self.pack}:{self.question}"
        return self.task or self.ensemble or pack or self._baseline

    @property
    def _baseline(self) -> str:
        if self.base is None:
            return "majority"
        few_shot = ":few-shot" if self.base.few_shot else ""
        return f"base{few_shot}{':calibrated' if self.base.calibrated else ''}"

    @model_serializer
    def _written(self) -> dict[str, Any]:
        """Only what was given."""
        base = None if self.base is None else self.base.model_dump(mode="json")
        of_pack = {"pack": self.pack, "question": self.question}
        named: dict[str, Any] = {"task": self.task, "ensemble": self.ensemble, **of_pack}
        named |= {"base": base, "majority": self.majority}
        return {name: value for name, value in named.items() if value is not None}


_Subjects = Annotated[
    tuple[EvaluationSubject, ...], Field(strict=False, fail_fast=True, max_length=MOST_SUBJECTS)
]


class EvaluationDocument(DocumentModel):
    """What to evaluate, on which rows, by which metrics."""

    most: ClassVar[Mapping[str, int]] = {
        "subjects": MOST_SUBJECTS,
        "labels": MAX_ITEMS,
        "columns": MAX_ITEMS,
        "target_texts": MAX_ITEMS,
        "column_names": MAX_ITEMS,
    }
    long_texts: ClassVar[Collection[str] | None] = None

    subjects: _Subjects = Field(
        default=(),
        description="What is evaluated, on the same rows; the later ones are compared with the first. "
        "Required.",
    )
    file: ShortText = Field(
        default_factory=str, description="Id of the uploaded file with the rows. Required."
    )
    examples: ShortText | None = Field(
        None,
        description="Id of the uploaded file from which `few_shot` and `majority` take rows: train, say.",
    )
    format: Format | None = Field(
        None, description="Format of both files. When left out, each file's ending decides."
    )
    column_names: TextList = Field(
        default=(), description="Names of the columns of CSV and TSV files without a header."
    )
    columns: TextMap = Field(
        default_factory=dict,
        description="Column of each template field whose name differs from its column's.",
    )
    target: ShortText = Field("label", description="Column of the answer.")
    target_texts: TextMap = Field(
        default_factory=dict, description="Answer for each value of that column, such as `negative` for `0`."
    )
    labels: TextList = Field(
        default=(),
        description="The possible answers, in order. When left out: the labels that all subjects have; the "
        "base model has none.",
    )
    metrics: Annotated[tuple[Text, ...], Field(strict=False, fail_fast=True, max_length=16)] = Field(
        default=(),
        description="Any metrics of tuning. When left out: `accuracy`, `f1_macro` and `matthews` with "
        "labels, `exact_match`, `squad_em` and `squad_f1` without.",
    )
    metric_columns: TextMap = Field(
        default_factory=dict,
        exclude_if=lambda columns: not columns,
        description="Columns that metrics need beside the answer, as in a job document: `group`, `label`.",
    )
    answer_by: EvaluatedBy | None = Field(
        None,
        description="`ranked`: the most probable label; `calibrated`: the same by calibrated probabilities; "
        "`greedy`: the text that the model writes, which may be none of the labels. When left out: `ranked` "
        "with labels.",
    )
    max_new_tokens: int | None = Field(
        None, ge=1, le=65_536, description="Most tokens of a greedy answer; by default the version's own."
    )
    truncate: bool = Field(True, description="Cut texts that are too long, as tuning does.")
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="Seed of the resamples of comparisons, and of `few_shot`."
    )
    base_fingerprint: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="Fingerprint of a base model; the job is refused on any other."
    )

    def check(self) -> None:
        """Refuse what does not go together, whatever the subjects are. Raises InvalidInputError."""
        if not self.subjects:
            refuse("is required: name at least one subject", "subjects", code="missing_field")
        if not self.file:
            refuse(
                "is required: upload the rows, and send the id in the answer", "file", code="missing_field"
            )
        few_shot = [place for place, each in enumerate(self.subjects) if each.base and each.base.few_shot]
        for place, subject in enumerate(self.subjects):
            _check_subject(subject, f"subjects.{place}")
        if few_shot and self.examples is None:
            path = f"subjects.{few_shot[0]}.base.few_shot"
            refuse("needs examples: the id of an uploaded file, other than the one with the rows", path)
        majority = [place for place, each in enumerate(self.subjects) if each.majority]
        if majority and self.examples is None:
            path = f"subjects.{majority[0]}.majority"
            refuse("needs examples: the id of an uploaded file, whose commonest answer it is", path)
        if len(majority) == len(self.subjects):
            refuse("has only majority: name what to compare with it", "subjects")
        if self.examples is not None and not few_shot and not majority:
            refuse("is for majority, and for a base subject with few_shot", "examples")
        if self.examples is not None and self.examples == self.file:
            refuse("is the file with the rows: the answers would stand before the questions", "examples")
        if len(set(self.column_names)) != len(self.column_names):
            refuse("names a column twice", "column_names")

    def completed(self, labels: tuple[str, ...]) -> EvaluationDocument:
        """The document with every default written out.

        Args:
            labels: that all subjects have.

        Raises:
            InvalidInputError: the labels or metrics do not suit.
        """
        labels = self.labels or labels
        try:
            check_labels(labels)
        except InvalidError as error:
            raise InvalidInputError(error.message, field="labels", code=error.code) from error
        if len(labels) == 1:
            refuse("has only one label: name two or more, or none for free text", "labels")
        if self.answer_by in ("ranked", "calibrated") and not labels:
            message = f"is {self.answer_by}, and there are no labels that all subjects have: send labels"
            refuse(message, "answer_by")
        for key, text in self.target_texts.items():
            if labels and text not in labels:
                refuse("is none of the labels", f"target_texts.{key}", code="unknown_label")
        metrics = self.metrics or (_OF_LABELS if labels else _OF_TEXTS)
        check_columns(self.metric_columns, "metric_columns")
        check_metrics(metrics, labels, self.metric_columns)
        answer_by: EvaluatedBy = self.answer_by or ("ranked" if labels else "greedy")
        for place, subject in enumerate(self.subjects):
            if subject.base is not None and subject.base.calibrated and answer_by != "ranked":
                refuse("goes with labels and answer_by ranked", f"subjects.{place}.base.calibrated")
        if self.max_new_tokens is not None and answer_by != "greedy":
            refuse(f"is for greedy answers: {answer_by} ones generate no text", "max_new_tokens")
        return self.model_copy(update={"labels": labels, "metrics": metrics, "answer_by": answer_by})


def _check_subject(subject: EvaluationSubject, path: str) -> None:
    names = ("task", "ensemble", "pack", "base", "majority")
    if sum(getattr(subject, name) is not None for name in names) != 1:
        refuse(
            'must be one of {"task": "sst2@3"}, {"ensemble": "sst2-ensemble"}, '
            '{"pack": "desk", "question": "refund"}, {"base": {...}} and {"majority": true}',
            path,
        )
    if subject.pack is not None and subject.question is None:
        message = "is required: name the question of the pack by its id"
        refuse(message, f"{path}.question", code="missing_field")
    if subject.question is not None and subject.pack is None:
        refuse("is for a pack", f"{path}.question")
    if subject.base is not None:
        try:
            parse_template(subject.base.template)
        except InvalidError as error:
            field = f"{path}.base.template"
            raise InvalidInputError(error.message, field=field, code=error.code) from error
