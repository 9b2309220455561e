"""The first stage: makes examples and first values from a job document.

Whatever can be refused before the first step is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.tuning.data.examples import Example, make_examples, target_ids
from chorus_server.tuning.data.splits import Split
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.document.recipe import NORMALIZER_SETTING, TRUNCATION_SETTING, Recipe
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.attempts.config import TuningBase
from chorus_server.tuning.jobs.stages.datasets import Dataset, load_dataset
from chorus_server.tuning.jobs.stages.labels import entry_with_labels
from chorus_server.tuning.training.initialisers import InitialiserSource, initial_prompt
from chorus_server.tuning.training.run import PromptTask, TrainingRun
from prompts_store.digests import canonical_json
from prompts_store.records import Reference
from prompts_store.tasks.references import format_reference, parse_reference


@dataclass(frozen=True)
class Validated:
    """A job whose data was read and checked.

    Attributes:
        document: with references to prompts fixed to versions.
        members: what is trained: `document.members`, or some of them.
        tasks: one for each member; the micro-batch size is not settled yet.
        lineages: the data's, one for each member; see `Dataset`.
        warnings: about what is odd but allowed.
    """

    document: JobDocument
    members: tuple[PromptDocument, ...]
    tasks: tuple[PromptTask, ...]
    lineages: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]

    def run(self, micro_batch_size: int) -> TrainingRun:
        """The run, with a fixed micro-batch size."""
        settled = [task.recipe.changed(micro_batch_size=micro_batch_size) for task in self.tasks]
        tasks = [replace(task, recipe=recipe) for task, recipe in zip(self.tasks, settled, strict=True)]
        voting = self.document.ensemble is not None
        return TrainingRun(self.document.seed, tuple(tasks), voting)

    def only(self, places: Sequence[int]) -> Validated:
        """The job with some of its members alone, without the warnings."""
        return replace(
            self,
            members=tuple(self.members[place] for place in places),
            tasks=tuple(self.tasks[place] for place in places),
            lineages=tuple(self.lineages[place] for place in places),
            warnings=(),
        )


def validate(attempt: Attempt, document: JobDocument) -> Validated:
    """Fetch, read, check and tokenise.

    Raises:
        InvalidInputError: it names the field, and the row if there is one.
        StoreError: an uploaded file or a prompt is not there.
    """
    attempt.begin("validating")
    base, several = attempt.base, len(document.prompts) > 1
    tasks: list[PromptTask] = []
    entries: list[PromptDocument] = []
    trained: list[PromptDocument] = []
    lineages: list[Mapping[str, Any]] = []
    warnings: list[str] = []
    source = InitialiserSource(base.vocabulary, base.embed, base.width)
    reader = _Reader(attempt, document.seed)
    for place, entry in enumerate(document.prompts):
        attempt.interrupt()
        at = f"prompts.{place}." if several else ""
        name = f"prompt {place} ({entry.task}): " if several else ""
        for variant in document.variants(entry):
            _check_servable(variant, base, at)
        dataset = reader.dataset(entry, f"{at}data")
        attempt.interrupt()
        if entry.labels_from_data:
            entry, found = entry_with_labels(entry, dataset, base)
            attempt.held.tell([("labels", {"prompt": place, "labels": list(entry.labels)})])
            warnings += [name + warning for warning in found]
        fixed, existing = _existing(entry, attempt, f"{at}initial_prompt")
        entries.append(fixed)
        warnings += [name + warning for warning in dataset.warnings]
        for variant in document.variants(fixed):
            task, said = _task(variant, base, reader, dataset, at)
            copies = document.copies(variant)
            tasks += [
                replace(task, index=each.index, initial=_initial(each, source, document.seed, existing, at))
                for each in copies
            ]
            trained += copies
            lineages += [dataset.lineage] * len(copies)
            warnings += [name + warning for warning in said]
    tokens = sum(len(example.input_ids) + len(example.target_ids) for example in tasks[0].train)
    attempt.progress |= {"train_rows": len(tasks[0].train), "train_tokens": tokens}
    fixed_document = document.model_copy(update={"prompts": tuple(entries)})
    once = tuple(dict.fromkeys(warnings))  # the trials of a sweep warn alike
    return Validated(fixed_document, tuple(trained), tuple(tasks), tuple(lineages), once)


def _check_servable(entry: PromptDocument, base: TuningBase, at: str) -> None:
    if entry.recipe.prompt_length > base.max_prompt_rows:
        raise InvalidInputError(
            f"prompt_length is {entry.recipe.prompt_length}, and the longest prompt that this server serves "
            f"has {base.max_prompt_rows} rows; shorten it, or ask the operator for longer input_lengths",
            field=f"{at}recipe.prompt_length",
        )


def _task(
    entry: PromptDocument, base: TuningBase, reader: _Reader, dataset: Dataset, at: str
) -> tuple[PromptTask, tuple[str, ...]]:
    """The prompt's task, without its index and first values, and warnings."""
    recipe = entry.recipe
    said: list[str] = []

    def examples(split: Split | None) -> tuple[Example, ...]:
        if split is None:
            return ()
        made, cut = reader.examples(split, recipe, f"{at}data.{split.name}")
        said.extend(f"{split.name}: {warning}" for warning in cut)
        return made

    label_ids = _label_ids(entry, base, at)
    longest = max((len(ids) for ids in label_ids), default=0)
    if longest > base.max_label_tokens:
        said.append(
            f"a label has {longest} tokens with </s>; this server ranks labels of at most "
            f"{base.max_label_tokens} (score_buckets)"
        )
    said += _without_rows(recipe, entry.labels, base)
    train, validation = examples(dataset.train), examples(dataset.validation)
    test = validation if dataset.test is dataset.validation else examples(dataset.test)
    blank = np.zeros((recipe.prompt_length, base.width), np.float32)
    task = PromptTask(
        index=entry.index,
        recipe=recipe,
        initial=blank,
        train=train,
        validation=validation,
        test=test,
        metrics=entry.metrics,
        labels=entry.labels,
        label_ids=label_ids,
        answer_by=entry.answer_by,
    )
    return task, tuple(said)


def _without_rows(recipe: Recipe, labels: Sequence[str], base: TuningBase) -> list[str]:
    """A warning if the prompt has too few rows for what its initialiser would put there."""
    rows = recipe.prompt_length
    if recipe.initialiser == "class_labels" and len(labels) > rows:
        return [
            f"the class_labels initialiser gives each label a row, and there are {len(labels)} labels for a "
            f"prompt_length of {rows}: labels from number {rows} on begin without one"
        ]
    words = recipe.initialiser_words or ()
    if len(words) > rows:
        return [
            f"there are {len(words)} initialiser_words, and only the first {rows} get a row (prompt_length)"
        ]
    if recipe.initialiser == "text":
        tokens = len(base.vocabulary.encode(recipe.initialiser_text or ""))
        if tokens > rows:
            return [
                f"initialiser_text has {tokens} tokens, and only the first {rows} get a row (prompt_length)"
            ]
    return []


def _label_ids(entry: PromptDocument, base: TuningBase, at: str) -> tuple[tuple[int, ...], ...]:
    """Ids of each label as it is scored, by the rules of serving."""
    found: list[tuple[int, ...]] = []
    for number, label in enumerate(entry.labels):
        field = f"{at}labels.{number}"
        if not base.vocabulary.encode(label, allow_sentinels=entry.recipe.special_tokens):
            raise InvalidInputError("the label has no token in the model's vocabulary", field=field)
        ids = target_ids(label, base.vocabulary, entry.recipe)
        if ids in found:
            other = found.index(ids)
            message = f"the label has the same tokens as label {other}; the model cannot tell them apart"
            raise InvalidInputError(message, field=field)
        found.append(ids)
    return tuple(found)


def _initial(entry: PromptDocument, source: InitialiserSource, seed: int, existing: Any, at: str) -> Any:
    try:
        return initial_prompt(entry.recipe, source, seed, entry.index, labels=entry.labels, existing=existing)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field=f"{at}{error.field}", code=error.code) from error


def _existing(entry: PromptDocument, attempt: Attempt, field: str) -> tuple[PromptDocument, Any]:
    """The entry with its reference fixed to a version, so that later attempts start from the same values, and
    those values."""
    if entry.initial_prompt is None:
        return entry, None
    tenant, store = attempt.job.tenant, attempt.store
    reference = parse_reference(entry.initial_prompt, tenant=tenant, field=field)
    version = store.resolve(reference, tenant=tenant, field=field, right="read")
    if version.manifest.base_fingerprint not in (None, attempt.base.fingerprint):
        message = f"{entry.initial_prompt} was tuned on another base model"
        raise InvalidInputError(message, field=field, code="base_mismatch")
    fixed = format_reference(Reference(version.tenant, version.task, version.number, None))
    return entry.model_copy(update={"initial_prompt": fixed}), store.values(version.manifest.digest)


_READ_BY = {"data", "template", "target", "columns", "target_texts", "labels", "metric_columns"}
"""Fields of a prompt that decide what is read from its files."""


class _Reader:
    """Reads data once for all prompts that train on it; they may differ in their learning rates, say."""

    def __init__(self, attempt: Attempt, seed: int) -> None:
        self._attempt = attempt
        self._seed = seed
        self._datasets: dict[bytes, Dataset] = {}
        self._examples: dict[tuple[Any, ...], tuple[tuple[Example, ...], tuple[str, ...]]] = {}

    def dataset(self, entry: PromptDocument, path: str) -> Dataset:
        """See `load_dataset`."""
        own = {name: entry.settings.get(name) for name in (NORMALIZER_SETTING, TRUNCATION_SETTING)}
        key = canonical_json(entry.model_dump(mode="json", include=_READ_BY) | own)
        if key not in self._datasets:
            self._datasets[key] = load_dataset(self._attempt, entry, self._seed, path)
        return self._datasets[key]

    def examples(
        self, split: Split, recipe: Recipe, field: str
    ) -> tuple[tuple[Example, ...], tuple[str, ...]]:
        """See `make_examples`. Splits live as long as this reader, so their ids are unique."""
        limits = (recipe.text_tokens, recipe.max_target_tokens)
        key = (id(split), *limits, recipe.sentinel_before_target, recipe.special_tokens)
        if key not in self._examples:
            self._examples[key] = make_examples(
                split.rows,
                self._attempt.base.vocabulary,
                recipe,
                field=field,
                interrupt=self._attempt.interrupt,
            )
        return self._examples[key]
