"""The document of a tuning job, as it is sent, stored and run.

    {"task": "sst2", "data": {"train": {"file": "file-..."}}, "template": "{sentence}", "labels": [...], ...}

One job trains one prompt, an `ensemble` of them (the same data, other random keys), one recipe with several
`seeds`, a `sweep` over recipes, or several prompts: each entry of `prompts` overrides what stands beside that
list. A completed document has every prompt in `prompts`, with all
defaults written out, and completing it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.document.fields import MAX_ITEMS, PRINTABLE, FieldPaths, ShortText, refuse
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.document.recipe import SHARED
from chorus_server.tuning.document.sweep import MAX_TRAINED, Rung, SweepDocument, recipe_of
from prompts_store.errors import InvalidError
from prompts_store.names import check_name

MAX_PROMPTS = 64
"""Most prompts of one job: they share every dispatch."""

MAX_NOTES = 32
"""Most notes in `metadata`."""

_Note = Annotated[str, Field(max_length=512), PRINTABLE]


class JobDocument(PromptDocument):
    """A tuning job: one prompt, an ensemble of them, or several (`prompts`) in one compiled step."""

    most: ClassVar[Mapping[str, int]] = {
        "prompts": MAX_PROMPTS,
        "labels": MAX_ITEMS,
        "columns": MAX_ITEMS,
        "target_texts": MAX_ITEMS,
        "column_names": MAX_ITEMS,
        "metadata": MAX_NOTES,
        "trials": MAX_TRAINED,
    }
    long_texts: ClassVar[Collection[str] | None] = None

    prompts: tuple[PromptDocument, ...] = Field(
        default_factory=tuple,
        strict=False,
        fail_fast=True,
        min_length=1,
        max_length=MAX_PROMPTS,
        description="Several prompts in one compiled step. Fields beside this list are defaults for each of "
        "them.",
    )
    seed: int = Field(
        0,
        ge=0,
        le=2**63 - 1,
        description="Seed of everything random in the job, together with each prompt's `index`.",
    )
    ensemble: int | None = Field(
        None,
        ge=2,
        le=MAX_PROMPTS,
        description="Make this many prompts from the same data, and an ensemble of them.",
    )
    ensemble_name: Annotated[str, Field(min_length=1, max_length=64), PRINTABLE] | None = Field(
        None, description="Name of that ensemble. When left out: the task's name and `-ensemble`."
    )
    seeds: int = Field(
        1,
        ge=1,
        le=MAX_PROMPTS,
        exclude_if=lambda seeds: seeds == 1,
        description="Train every recipe so often, with the indices from `index` on. The result has mean and "
        "deviation, and the best seed becomes a version.",
    )
    sweep: SweepDocument | None = Field(
        None,
        exclude_if=lambda sweep: sweep is None,
        description="Try several recipes, and make a version of the best.",
    )
    promote: bool = Field(
        False,
        description="Move `@live` to the new version (for an ensemble: to the best on validation). It "
        "needs the scope `prompts:write`. A task's first version gets it anyway.",
    )
    base_fingerprint: Annotated[str, Field(min_length=1, max_length=128), PRINTABLE] | None = Field(
        None, description="Fingerprint of a base model; the job is refused on any other."
    )
    metadata: Annotated[dict[ShortText, _Note], Field(max_length=MAX_NOTES)] = Field(
        default_factory=dict, description="Your own notes, kept with the job."
    )

    @staticmethod
    def from_json(document: Any) -> JobDocument:
        """Read a document, as sent or as `to_json` writes it, and complete it.

        Raises:
            InvalidInputError: see `read` and `completed`.
        """
        return JobDocument.read(document).completed()

    def to_json(self) -> dict[str, Any]:
        """The completed document as plain JSON values, with all defaults."""
        return self.model_dump(mode="json", exclude=set(PromptDocument.model_fields))

    def completed(self) -> JobDocument:
        """The document with every prompt in `prompts` and every default written out.

        Raises:
            InvalidInputError: a field is missing, or values do not go together. `field` is the dotted path
                at which the field was sent, such as `prompts.1.recipe.learning_rate`.
        """
        entries = [entry.over(self) for entry in self.prompts or (PromptDocument(),)]
        paths = self.paths
        prompts = [entry.with_defaults(place, paths[place]) for place, entry in enumerate(entries)]
        _check_shared(prompts, entries, paths)
        name = self._name_of_ensemble(prompts)
        _check_indices(prompts, entries, paths)
        for field in ("seeds", "sweep"):
            if self.searches and self.sent(field):
                self._check_alone(prompts, field)
        if self.searches and prompts[0].data.cuts_validation and prompts[0].data.validation_rows == 0:
            message = "is 0, and the validation split chooses among seeds and recipes"
            refuse(message, f"{paths[0]('data')}.validation_rows")
        return JobDocument(
            prompts=tuple(prompts),
            seed=self.seed,
            seeds=self.seeds,
            sweep=self.sweep and self.sweep.completed(prompts[0], entries[0].recipe, self.seed, self.seeds),
            ensemble=self.ensemble,
            ensemble_name=name,
            promote=self.promote,
            base_fingerprint=self.base_fingerprint,
            metadata=self.metadata,
        )

    @property
    def paths(self) -> list[FieldPaths]:
        """Where the fields of each prompt were sent."""
        beside = ("", self)
        entries = [(f"prompts.{place}.", entry) for place, entry in enumerate(self.prompts)]
        return [FieldPaths((entry, beside)) for entry in entries] or [FieldPaths((beside,))]

    @property
    def sources(self) -> Iterator[tuple[str, str, str]]:
        """Dotted path, kind and value of every source in the document, as it was sent."""
        parts = [
            ("data", self.data),
            *((f"prompts.{n}.data", each.data) for n, each in enumerate(self.prompts)),
        ]
        for path, data in parts:
            for split, source in data.splits.items():
                for kind, value in source.to_json().items():
                    yield f"{path}.{split}.{kind}", kind, value

    @property
    def searches(self) -> bool:
        """Whether it chooses among what it trains: the best of its seeds or recipes becomes a version."""
        return self.seeds > 1 or self.sweep is not None

    @property
    def trials(self) -> tuple[dict[str, Any], ...]:
        """The knobs of each recipe that is tried; of a job without a sweep one, without any."""
        return ({},) if self.sweep is None else self.sweep.trials

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The rungs of successive halving; none of any other search."""
        return () if self.sweep is None else self.sweep.rungs

    def variants(self, prompt: PromptDocument) -> tuple[PromptDocument, ...]:
        """A prompt of the job with each recipe that is tried."""
        if self.sweep is None:
            return (prompt,)
        recipes = (recipe_of(prompt.recipe, knobs) for knobs in self.sweep.trials)
        return tuple(prompt.model_copy(update={"recipe": recipe}) for recipe in recipes)

    def copies(self, prompt: PromptDocument) -> tuple[PromptDocument, ...]:
        """The prompts that are trained of one: each has its index, plus its number."""
        number = self.ensemble or self.seeds
        return tuple(prompt.model_copy(update={"index": prompt.index + n}) for n in range(number))

    @property
    def members(self) -> tuple[PromptDocument, ...]:
        """The prompts that are trained: of each entry every variant, and of each variant every copy."""
        return tuple(
            copy
            for prompt in self.prompts
            for variant in self.variants(prompt)
            for copy in self.copies(variant)
        )

    @property
    def training_steps(self) -> int:
        """The most training steps that it does, over all of its prompts: each step trains each of them."""
        if not self.rungs:
            return sum(member.recipe.steps for member in self.members)
        begins = (0, *(rung.steps for rung in self.rungs))
        return sum(
            (rung.steps - begin) * rung.trials * self.seeds
            for rung, begin in zip(self.rungs, begins, strict=False)
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that get new versions, without repetition."""
        return tuple(dict.fromkeys(prompt.task for prompt in self.prompts))

    def made(self, paths: Sequence[FieldPaths]) -> Iterator[tuple[Literal["task", "ensemble"], str, str]]:
        """What the job makes versions of: the kind, the name, and the field that gives it.

        Args:
            paths: of the document as it was sent.
        """
        for prompt, path in zip(self.prompts, paths, strict=True):
            yield "task", prompt.task, path("task")
        if self.ensemble_name is not None:
            yield "ensemble", self.ensemble_name, "ensemble_name"

    def _check_alone(self, prompts: list[PromptDocument], field: str) -> None:
        if len(prompts) > 1:
            refuse(f"is made of one prompt's data; leave out prompts, or {field}", field)
        if self.ensemble is not None:
            refuse(f"makes versions of its own; leave out ensemble, or {field}", field)

    def _name_of_ensemble(self, prompts: list[PromptDocument]) -> str | None:
        if self.ensemble is None:
            if self.ensemble_name is not None:
                refuse("goes with ensemble, the number of its members", "ensemble_name")
            return None
        if len(prompts) > 1:
            refuse("is made of one prompt's data; leave out prompts, or ensemble", "ensemble")
        try:
            name = self.ensemble_name or f"{prompts[0].task}-ensemble"[:64]
            return check_name(name, field="ensemble_name")
        except InvalidError as error:
            field = "ensemble_name" if self.ensemble_name else "ensemble"
            raise InvalidInputError(error.message, field=field, code=error.code) from error


def names_made(spec: Mapping[str, Any]) -> list[str]:
    """What a stored job makes versions of, also if its document can be read no longer."""
    names = [prompt["task"] for prompt in spec.get("prompts", ())]
    return [*names, spec["ensemble_name"]] if spec.get("ensemble_name") else names


def _check_shared(
    prompts: list[PromptDocument], entries: list[PromptDocument], paths: list[FieldPaths]
) -> None:
    """Refuse prompts that differ in a knob that all prompts of a job must share."""
    for place, prompt in enumerate(prompts):
        for name in SHARED:
            ours, first = getattr(prompt.recipe, name), getattr(prompts[0].recipe, name)
            if ours != first:
                at = paths[place if entries[place].recipe.sent(name) else 0]
                message = (
                    f"is {ours} in prompt {place} and {first} in the first: all prompts of a job need the "
                    "same"
                )
                refuse(message, at("recipe", name))


def _check_indices(
    prompts: list[PromptDocument], entries: list[PromptDocument], paths: list[FieldPaths]
) -> None:
    places: dict[int, int] = {}
    for place, prompt in enumerate(prompts):
        other = places.setdefault(prompt.index, place)
        if other != place:
            at = paths[place if entries[place].sent("index") else other]
            refuse(
                f"is {prompt.index} in prompts {other} and {place}: each prompt needs its own", at("index")
            )
