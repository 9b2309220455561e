"""One prompt of a job document: task, data, how rows become text, recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from chorus_server.errors import InvalidInputError
from chorus_server.quality.column_metrics import check_columns
from chorus_server.quality.metrics import check_metrics
from chorus_server.tuning.document.data import DataDocument
from chorus_server.tuning.document.fields import (
    AnswerBy,
    DocumentModel,
    FieldPaths,
    Paragraph,
    ShortText,
    Text,
    TextList,
    TextMap,
    refuse,
)
from chorus_server.tuning.document.recipe import Initialiser, Recipe
from prompts_store.checks import check_text
from prompts_store.errors import InvalidError
from prompts_store.names import check_name
from prompts_store.tasks.labels import check_labels
from prompts_store.tasks.manifests import MAX_DESCRIPTION_CHARACTERS
from prompts_store.tasks.references import parse_reference
from prompts_store.tasks.template import parse_template

_SUITS = {
    "initialiser_text": ("initialiser",),
    "initialiser_words": ("initialiser",),
    "micro_batch_size": ("batch_size",),
    "steps_per_decay": ("decay_factor",),
    "max_input_tokens": ("prompt_length",),
}
"""Knobs that are checked against others: the one to name if only that other one was sent."""


class PromptDocument(DocumentModel):
    """What one prompt is tuned for."""

    # Defaults made by a factory are not documented: `with_defaults` replaces them, or they are empty.
    task: ShortText = Field(
        default_factory=str, description="Gets the new version; it is created if it does not exist. Required."
    )
    index: int = Field(
        default_factory=int,
        ge=0,
        le=2**31 - 1,
        description="Number from which its random keys are made, so that prompt 3 of a job can be trained "
        "alone with the same result. When left out: its place in the job.",
    )
    data: DataDocument = Field(default_factory=DataDocument, description="The splits of its data. Required.")
    template: Text = Field(
        "{text}", description="How columns become text; only `{name}` fields are possible."
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
        default=(), description="The answers of a classification task, in order; none for free text."
    )
    labels_from_data: bool = Field(
        False,
        description="Make the answers of the train split the labels, if it has 2 to 20 different ones, each "
        "at least twice and together at most a tenth of its rows. Else it stays free text.",
    )
    metrics: tuple[Text, ...] = Field(
        default_factory=tuple,
        strict=False,
        fail_fast=True,
        max_length=16,
        description="Metrics whose mean chooses the checkpoint. When left out: `accuracy` with labels, "
        "`exact_match` without.",
    )
    metric_columns: TextMap = Field(
        default_factory=dict,
        exclude_if=lambda columns: not columns,
        description="Columns that metrics need beside the answer: `group`, the question or query of a row; "
        "`label`, whether its referent is the right one. Only validation and test rows need them.",
    )
    answer_by: AnswerBy = Field(
        "ranked",
        description="How labels are answered on validation and test: `ranked`, the most probable one; "
        "`greedy`, the text that the model writes, as in the paper. Without labels always `greedy`.",
    )
    recipe: Recipe = Field(
        default_factory=Recipe, description="The knobs whose values differ from the paper's."
    )
    description: Paragraph | None = Field(None, description="Description of the task.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Default generation settings of the version."
    )
    initial_prompt: ShortText | None = Field(
        None,
        description="Reference of the prompt to start from. It is pinned to a version when the job is "
        "created.",
    )

    def over(self, beside: PromptDocument) -> PromptDocument:
        """The prompt, with the fields and knobs that it leaves out taken from `beside`."""
        taken = {
            name: getattr(beside, name)
            for name in PromptDocument.model_fields
            if beside.sent(name) and not self.sent(name)
        }
        if self.sent("recipe") and beside.sent("recipe"):
            own = {name: getattr(self.recipe, name) for name in self.recipe.model_fields_set}
            taken["recipe"] = beside.recipe.model_copy(update=own)
        return self.model_copy(update=taken)

    def with_defaults(self, place: int, at: FieldPaths) -> PromptDocument:
        """The prompt with every default written out.

        Args:
            place: of the prompt in the job; its index too, unless the document gives one.
            at: where its fields were sent.

        Raises:
            InvalidInputError: a field is missing, or values do not go together.
        """
        self._check_texts(at)
        # Of labels from data the metrics are known once it was read, see `with_labels`.
        metrics = self.metrics if self.labels_from_data else self.metrics or _metrics_of(self.labels)
        check_columns(self.metric_columns, at("metric_columns"))
        with _naming(at("metrics")):
            if metrics or not self.labels_from_data:
                check_metrics(metrics, self.labels, self.metric_columns)
        if self.initial_prompt is not None:
            with _naming(at("initial_prompt")):
                parse_reference(self.initial_prompt, tenant="default", field="initial_prompt")
        with _naming(at("description")):  # as the store will check when the version is made
            check_text(self.description or "", field="description", limit=MAX_DESCRIPTION_CHARACTERS)
        if not self.sent("data"):
            refuse("is required: name at least data.train", at("data"), code="missing_field")
        self.data.check(at("data"))
        index = self.index if self.sent("index") else place
        return self.model_copy(update={"index": index, "metrics": metrics, "recipe": self._recipe(at)})

    def with_labels(self, labels: tuple[str, ...]) -> PromptDocument:
        """The completed prompt of a job that takes its labels from data, with those that were found: none
        for free text."""
        changes: dict[str, Any] = {"labels": labels, "metrics": self.metrics or _metrics_of(labels)}
        if not labels and self.recipe.initialiser == "class_labels":
            changes["recipe"] = self.recipe.changed(initialiser="sampled_vocabulary")
        return self.model_copy(update=changes)

    def _check_texts(self, at: FieldPaths) -> None:
        if not self.task:
            refuse("is required", at("task"), code="missing_field")
        with _naming(at("task")):
            check_name(self.task, field="task")
        with _naming(at("labels"), "labels"):
            check_labels(self.labels)
        if len(self.labels) == 1:
            message = "has only one label: name two or more, or none for free text"
            refuse(message, at("labels"))
        if self.labels and self.labels_from_data:
            refuse(
                "is for a prompt whose labels are not named; leave one of the two out", at("labels_from_data")
            )
        with _naming(at("template")):
            known = parse_template(self.template).fields
        for name in self.columns:
            if name not in known:
                message = f"the template has no field {ascii(name)[:60]}; it has {', '.join(known)}"
                raise InvalidInputError(message, field=at("columns"))
        for key, text in self.target_texts.items():
            if self.labels and text not in self.labels:
                refuse("is none of the labels", f"{at('target_texts')}.{key}", code="unknown_label")

    def _recipe(self, at: FieldPaths) -> Recipe:
        """The recipe, checked; an initialiser that was left out is chosen to suit the prompt."""
        recipe = self.recipe.completed()
        if not recipe.sent("initialiser"):
            recipe = recipe.model_copy(update={"initialiser": self._initialiser()})
        try:
            recipe.check()
        except InvalidInputError as error:
            name = (error.field or "").removeprefix("recipe.")
            if not self.recipe.sent(name):  # a default conflicts with what was sent
                name = next((each for each in _SUITS[name] if self.recipe.sent(each)), "")
            field = at("recipe", name) if name else at("recipe")
            raise InvalidInputError(error.message, field=field, code=error.code) from error
        if (recipe.initialiser == "existing_prompt") != (self.initial_prompt is not None):
            if self.initial_prompt is None:
                message = "is existing_prompt, which goes with an initial_prompt: name the one to start from"
                refuse(message, at("recipe", "initialiser"))
            refuse("goes with the initialiser 'existing_prompt', and only with it", at("initial_prompt"))
        if recipe.initialiser == "class_labels" and not (self.labels or self.labels_from_data):
            refuse("is class_labels, and the prompt has no labels", at("recipe", "initialiser"))
        return recipe

    def _initialiser(self) -> Initialiser:
        if self.initial_prompt is not None:
            return "existing_prompt"
        if self.recipe.initialiser_text is not None:
            return "text"
        if self.recipe.initialiser_words is not None:
            return "words"
        return "class_labels" if self.labels or self.labels_from_data else "sampled_vocabulary"


def _metrics_of(labels: tuple[str, ...]) -> tuple[str, ...]:
    return ("accuracy",) if labels else ("exact_match",)


@contextmanager
def _naming(path: str, instead_of: str | None = None) -> Iterator[None]:
    """Make errors raised inside name this path; with `instead_of`, it replaces only that prefix of theirs."""
    try:
        yield
    except (InvalidError, InvalidInputError) as error:
        found = error.field or ""
        if instead_of is None:
            found = path
        elif found == instead_of or found.startswith(f"{instead_of}."):
            found = path + found.removeprefix(instead_of)
        raise InvalidInputError(error.message, field=found or path, code=error.code) from error
