"""One prompt of a job document: task, data, how rows become text, recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prompts_store.checks import check_text
from prompts_store.errors import InvalidError
from prompts_store.names import check_name
from prompts_store.tasks.labels import check_labels
from prompts_store.tasks.manifests import MAX_DESCRIPTION_CHARACTERS
from prompts_store.tasks.references import parse_reference
from server.errors import InvalidInputError
from server.tuning.data.columns import ColumnMap
from server.tuning.document import Document, refuse
from server.tuning.metrics import check_metrics
from server.tuning.recipe import Recipe
from server.tuning.spec_data import DataSpec, parse_data

PROMPT_FIELDS = (
    "task",
    "index",
    "data",
    "template",
    "columns",
    "target",
    "target_texts",
    "labels",
    "metrics",
    "recipe",
    "description",
    "settings",
    "initial_prompt",
)
_MAX_INDEX = 2**31 - 1
_SUITS = {
    "initialiser_text": ("initialiser",),
    "micro_batch_size": ("batch_size",),
    "steps_per_decay": ("decay_factor",),
    "max_input_tokens": ("prompt_length",),
}
"""Knobs that are refused together with others: the one to name where only the other was sent."""


@dataclass(frozen=True)
class PromptSpec:
    """One prompt to train.

    Attributes:
        task: whose next version it becomes.
        index: what its random keys fold from, beside the job's seed; its place in the job unless set, so
            that prompt 3 of a job can be trained alone and come out the same.
        template, columns, target, target_texts: see `ColumnMap`.
        labels: answers of a classification task, in order; empty for free text.
        metrics: names of `metrics.METRICS`; their mean chooses the checkpoint.
        recipe: how; its `micro_batch_size` is the whole batch until it is settled.
        description: of the task.
        settings: default generation settings of the version.
        initial_prompt: reference of the prompt that `existing_prompt` starts from.
    """

    task: str
    index: int
    data: DataSpec
    template: str = "{text}"
    columns: Mapping[str, str] = field(default_factory=dict)
    target: str = "label"
    target_texts: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    recipe: Recipe = field(default_factory=Recipe)
    description: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    initial_prompt: str | None = None

    @property
    def column_map(self) -> ColumnMap:
        """How a row becomes text and answers."""
        return ColumnMap(self.template, self.target, self.columns, self.target_texts)

    def to_json(self, micro_batch_size: int | None) -> dict[str, Any]:
        """All fields, as plain JSON values."""
        return {
            "task": self.task,
            "index": self.index,
            "data": self.data.to_json(),
            "template": self.template,
            "columns": dict(self.columns),
            "target": self.target,
            "target_texts": dict(self.target_texts),
            "labels": list(self.labels),
            "metrics": list(self.metrics),
            "recipe": {**self.recipe.to_json(), "micro_batch_size": micro_batch_size},
            "description": self.description,
            "settings": dict(self.settings),
            "initial_prompt": self.initial_prompt,
        }


def parse_prompt(document: Document, place: int) -> PromptSpec:
    """One prompt.

    Args:
        place: in the job; its index unless the document says another.

    Raises:
        InvalidInputError: naming the field.
    """
    at = document.at
    task = document.text("task", most=256)
    labels: tuple[str, ...] = document.texts("labels")
    with _naming(at("task")):
        check_name(task, field="task")
    with _naming(at("labels"), "labels"):
        labels = check_labels(labels)
    if len(labels) == 1:
        refuse("has one label, which is no choice: name two or more, or none for free text", at("labels"))
    template, target = document.text("template", "{text}"), document.text("target", "label", most=256)
    columns, texts = document.text_map("columns"), document.text_map("target_texts")
    with _naming(at("columns"), "columns"), _naming(at("template"), "template"):
        ColumnMap(template, target, columns, texts)
    _check_target_texts(texts, labels, at("target_texts"))
    metrics = document.texts("metrics", most=16) or (("accuracy",) if labels else ("exact_match",))
    with _naming(at("metrics")):
        check_metrics(metrics, labels)
    initial = _initial_prompt(document)
    description = document.optional_text("description", most=2_048)
    with _naming(at("description")):  # as the store will ask when there is a version to make
        check_text(description or "", field="description", limit=MAX_DESCRIPTION_CHARACTERS)
    return PromptSpec(
        task=task,
        index=document.whole("index", place, 0, _MAX_INDEX) or 0,
        data=parse_data(document.get("data"), at("data")),
        template=template,
        columns=columns,
        target=target,
        target_texts=texts,
        labels=labels,
        metrics=metrics,
        recipe=_recipe(document, labels, initial),
        description=description,
        settings=document.json_object("settings"),
        initial_prompt=initial,
    )


def _recipe(document: Document, labels: tuple[str, ...], initial: str | None) -> Recipe:
    """The recipe; what the paper has no word on goes by the task: an initialiser that it can have."""
    value, path = document.get("recipe"), document.at("recipe")
    given = {} if value is None else value
    if not isinstance(given, Mapping):
        refuse("must be an object", path)
    fields = {name: each for name, each in given.items() if each is not None}
    if initial is not None:
        fields.setdefault("initialiser", "existing_prompt")
    elif "initialiser_text" in fields:
        fields.setdefault("initialiser", "text")
    elif not labels:
        fields.setdefault("initialiser", "sampled_vocabulary")
    # Settled when the job is prepared; until then a value that suits any batch.
    fields.setdefault("micro_batch_size", fields.get("batch_size", Recipe().batch_size))
    try:
        recipe = Recipe.from_json(fields)
    except InvalidInputError as error:
        name = (error.field or "").removeprefix("recipe.")
        if given.get(name) is None:  # a default that does not suit what was sent
            name = next((each for each in _SUITS.get(name, ()) if given.get(each) is not None), "")
        where = path if name in ("", "recipe") else document.within("recipe", name)
        raise InvalidInputError(error.message, field=where, code=error.code) from error
    if (recipe.initialiser == "existing_prompt") != (initial is not None):
        if initial is None:
            message = "is existing_prompt, which goes with an initial_prompt: name the one to start from"
            refuse(message, document.within("recipe", "initialiser"))
        refuse("goes with the initialiser 'existing_prompt', and only with it", document.at("initial_prompt"))
    if recipe.initialiser == "class_labels" and not labels:
        refuse("is class_labels, and the prompt has no labels", document.within("recipe", "initialiser"))
    return recipe


def _initial_prompt(document: Document) -> str | None:
    reference = document.optional_text("initial_prompt", most=256)
    if reference is not None:
        with _naming(document.at("initial_prompt")):
            parse_reference(reference, tenant="default", field="initial_prompt")
    return reference


def _check_target_texts(texts: Mapping[str, str], labels: tuple[str, ...], path: str) -> None:
    for key, text in texts.items():
        if labels and text not in labels:
            refuse("is none of the labels", f"{path}.{key}", code="unknown_label")


@contextmanager
def _naming(path: str, instead_of: str | None = None) -> Iterator[None]:
    """Errors inside name this path; with `instead_of`, only those of that field, whose rest is kept."""
    try:
        yield
    except (InvalidError, InvalidInputError) as error:
        found = error.field or ""
        if instead_of is None:
            found = path
        elif found == instead_of or found.startswith(f"{instead_of}."):
            found = path + found.removeprefix(instead_of)
        raise InvalidInputError(error.message, field=found or path, code=error.code) from error
