"""What a tuning job is to do: the job document, validated. Costs no JAX, so that a route may read it.

    {"task": "sst2", "data": {"train": {"file": "file-..."}}, "template": "{sentence}", "labels": [...], ...}

One job trains one prompt, an `ensemble` of them (the same data, other random keys), or several (`prompts`:
each entry overrides what stands beside the list). The normalised form has every prompt in `prompts` with all
defaults written out; reading it again gives the same `JobSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prompts_store.errors import InvalidError
from prompts_store.names import check_name
from server.errors import InvalidInputError
from server.tuning.document import Document, refuse
from server.tuning.job import SHARED
from server.tuning.spec_data import DataSpec, Source
from server.tuning.spec_prompt import PROMPT_FIELDS, PromptSpec, parse_prompt

__all__ = ["MAX_PROMPTS", "DataSpec", "JobSpec", "PromptSpec", "Source"]

MAX_PROMPTS = 64
"""Prompts of one job at most: they share each dispatch."""

_JOB_FIELDS = ("seed", "ensemble", "ensemble_name", "promote", "base_fingerprint", "prompts")
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class JobSpec:
    """One job.

    Attributes:
        prompts: what is trained; one entry when `ensemble` is set.
        seed: of everything random in the job, with each prompt's `index`.
        ensemble: how many prompts the one entry becomes; None is one, and no ensemble.
        ensemble_name: what they are registered as; None without an ensemble.
        promote: move `@live` to the new version (of an ensemble's prompts, to the best on selection).
        base_fingerprint: of the base model it is made for; None until the server that takes it says.
        micro_batch_size: examples of one prompt a dispatch; None until it is measured when the job is
            prepared.
    """

    prompts: tuple[PromptSpec, ...]
    seed: int = 0
    ensemble: int | None = None
    ensemble_name: str | None = None
    promote: bool = False
    base_fingerprint: str | None = None
    micro_batch_size: int | None = None

    @staticmethod
    def from_json(document: Any) -> JobSpec:
        """A job document, as it is sent or as `to_json` writes it.

        Raises:
            InvalidInputError: a missing or unknown field, a wrong type, a value out of range, or values that
                do not go together; `field` is its dotted path (`prompts.1.recipe.learning_rate`).
        """
        top = Document(document, "", (*PROMPT_FIELDS, *_JOB_FIELDS))
        entries = _entries(top)
        prompts = tuple(parse_prompt(entry, place) for place, entry in enumerate(entries))
        micro = _shared_recipe(entries, prompts)
        ensemble = top.whole("ensemble", None, 2, MAX_PROMPTS)
        spec = JobSpec(
            prompts=prompts,
            seed=top.whole("seed", 0, 0, _MAX_SEED) or 0,
            ensemble=ensemble,
            ensemble_name=_ensemble_name(top, ensemble, prompts),
            promote=top.flag("promote"),
            base_fingerprint=top.optional_text("base_fingerprint", most=128),
            micro_batch_size=micro,
        )
        _check_indices(spec, entries)
        return spec

    def to_json(self) -> dict[str, Any]:
        """The normalised document: plain JSON values, all defaults written out."""
        return {
            "prompts": [prompt.to_json(self.micro_batch_size) for prompt in self.prompts],
            "seed": self.seed,
            "ensemble": self.ensemble,
            "ensemble_name": self.ensemble_name,
            "promote": self.promote,
            "base_fingerprint": self.base_fingerprint,
        }

    @property
    def members(self) -> tuple[PromptSpec, ...]:
        """The prompts that are trained, an ensemble written out: member n has the entry's index + n."""
        if self.ensemble is None:
            return self.prompts
        first = self.prompts[0]
        return tuple(replace(first, index=first.index + n) for n in range(self.ensemble))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that get versions, each once."""
        return tuple(dict.fromkeys(prompt.task for prompt in self.prompts))

    @property
    def files(self) -> dict[str, str]:
        """Ids of the uploaded files that it reads, by the dotted path of the field that names each."""
        found = {}
        for place, prompt in enumerate(self.prompts):
            path = "data" if len(self.prompts) == 1 else f"prompts.{place}.data"
            for split, source in prompt.data.splits.items():
                if source.kind == "file":
                    found[f"{path}.{split}.file"] = source.value
        return found

    def for_base(self, fingerprint: str) -> JobSpec:
        """The spec for a base model.

        Raises:
            InvalidInputError: `base_mismatch`: it names another.
        """
        if self.base_fingerprint not in (None, fingerprint):
            message = "is of another base model; leave it out, or send the job to a server of that model"
            refuse(message, "base_fingerprint", code="base_mismatch")
        return replace(self, base_fingerprint=fingerprint)

    def settled(self, micro_batch_size: int) -> JobSpec:
        """The spec with a fixed micro-batch size, in each recipe too.

        Raises:
            InvalidInputError: it does not divide the batch.
        """
        prompts = tuple(
            replace(prompt, recipe=replace(prompt.recipe, micro_batch_size=micro_batch_size))
            for prompt in self.prompts
        )
        return replace(self, prompts=prompts, micro_batch_size=micro_batch_size)


def _entries(top: Document) -> list[Document]:
    """One document a prompt: what stands beside `prompts`, overridden by its entry."""
    shared = {name: value for name, value in top.value.items() if name in PROMPT_FIELDS}
    listed = top.get("prompts")
    if listed is None:
        return [Document(shared, "", PROMPT_FIELDS)]
    if not isinstance(listed, list | tuple) or not 1 <= len(listed) <= MAX_PROMPTS:
        refuse(f"must be a list of 1 to {MAX_PROMPTS} prompts", "prompts")
    documents = []
    for place, value in enumerate(listed):
        path = f"prompts.{place}"
        own = Document(value, path, PROMPT_FIELDS).value
        recipe, paths = _merged_recipe(shared.get("recipe"), own.get("recipe"), path)
        paths |= {name: name for name in shared if name not in own}
        documents.append(Document({**shared, **own, "recipe": recipe}, path, PROMPT_FIELDS, paths))
    return documents


def _merged_recipe(shared: Any, own: Any, path: str) -> tuple[Any, dict[str, str]]:
    """Fields of both; an entry's own go first. With the paths of those that came from beside the list."""
    if own is None or shared is None:
        return own if shared is None else shared, {}
    for value, where in ((shared, "recipe"), (own, f"{path}.recipe")):
        if not isinstance(value, Mapping):
            refuse("must be an object", where)
    return {**shared, **own}, {f"recipe.{name}": f"recipe.{name}" for name in shared if name not in own}


def _shared_recipe(entries: list[Document], prompts: tuple[PromptSpec, ...]) -> int | None:
    """Check what the prompts of one job have in common; the micro-batch size, if the document sets it."""
    sizes = [(entry.get("recipe") or {}).get("micro_batch_size") for entry in entries]
    for place, prompt in enumerate(prompts):
        for name in SHARED:
            ours = sizes[place] if name == "micro_batch_size" else getattr(prompt.recipe, name)
            first = sizes[0] if name == "micro_batch_size" else getattr(prompts[0].recipe, name)
            if ours != first:
                message = (
                    f"is {ours} in prompt {place} and {first} in the first; the prompts of one job share it"
                )
                sent = (entries[place].get("recipe") or {}).get(name) is not None
                refuse(message, entries[place if sent else 0].within("recipe", name))
    return None if sizes[0] is None else prompts[0].recipe.micro_batch_size


def _ensemble_name(top: Document, ensemble: int | None, prompts: tuple[PromptSpec, ...]) -> str | None:
    name = top.optional_text("ensemble_name", most=64)
    if ensemble is None:
        if name is not None:
            refuse("goes with ensemble, the number of its members", "ensemble_name")
        return None
    if len(prompts) > 1:
        refuse("is made of one prompt's data; leave out prompts, or ensemble", "ensemble")
    try:
        return check_name(name or f"{prompts[0].task}-ensemble"[:64], field="ensemble_name")
    except InvalidError as error:
        field = "ensemble_name" if name else "ensemble"
        raise InvalidInputError(error.message, field=field, code=error.code) from error


def _check_indices(spec: JobSpec, entries: list[Document]) -> None:
    places: dict[int, int] = {}
    for place, prompt in enumerate(spec.prompts):
        other = places.setdefault(prompt.index, place)
        if other != place:
            sent = place if entries[place].get("index") is not None else other
            message = f"is {prompt.index} in prompts {other} and {place}; indices differ"
            refuse(message, entries[sent].at("index"))
