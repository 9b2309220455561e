"""From a job document to what the store keeps: validated whole, bound to the resident base, pinned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_json

from prompts_store.jobs.jobs import MAX_SPEC_BYTES
from server.api.inference.resolve import check_base
from server.api.inference.sampling import check_settings
from server.api.inference.servable import faults
from server.api.schemas.tuning import TuningJobBody
from server.api.services import Services
from server.errors import ForbiddenError, InvalidInputError
from server.settings import Settings
from server.tenancy.principal import Principal, Scope
from server.tuning.recipe import SENTINEL_SETTING
from server.tuning.service.sources import allowed_path, check_url
from server.tuning.spec import JobSpec, PromptSpec

SPLITS = ("train", "selection", "report")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that may be stored.

    Attributes:
        document: normalised, with the base's fingerprint and every reference pinned to a version.
        files: ids of the files that it reads, by the field that named each.
    """

    document: dict[str, Any]
    files: dict[str, str]


async def job_request(services: Services, principal: Principal, sent: TuningJobBody) -> JobRequest:
    """Check a job document against the server.

    Raises:
        InvalidInputError: the document is not acceptable; the field is named.
        ForbiddenError: it promotes, and the key may not write prompts.
        StoreAnswerError: an `initial_prompt` that is not there.
        NotReadyError: the base model is not loaded yet.
    """
    body, spec = await services.text.run(_read, sent)
    if spec.promote and Scope.WRITE not in principal.scopes:
        raise ForbiddenError(
            f"The job would move @live, and the key lacks the scope {Scope.WRITE.value!r}: leave promote "
            "out, or use another key.",
            field="promote",
        )
    base = services.base()
    spec = spec.for_base(base.fingerprint)
    prompts = [
        await _checked(services, principal, prompt, Paths(body, place))
        for place, prompt in enumerate(spec.prompts)
    ]
    sources = list(named_sources(body))
    await services.library.read(_check_sources, services.settings, sources)
    files = {field: value for field, kind, value in sources if kind == "file"}
    document = await services.text.run(_written, replace(spec, prompts=tuple(prompts)))
    return JobRequest(document, files)


def _read(sent: TuningJobBody) -> tuple[dict[str, Any], JobSpec]:
    """What was sent, and what it asks for. On a thread: up to a whole body is gone through."""
    body = sent.model_dump(exclude_none=True)
    _check_size(body)  # before each prompt gets what stands beside them all
    return body, JobSpec.from_json(body)


def _written(spec: JobSpec) -> dict[str, Any]:
    document = spec.to_json()
    _check_size(document)
    return document


def _check_size(document: Mapping[str, Any]) -> None:
    size = len(to_json(document))
    if size > MAX_SPEC_BYTES:
        raise InvalidInputError(
            f"The job document has {size} bytes or more with all defaults written out; {MAX_SPEC_BYTES} is "
            "the most: name fewer prompts, or shorter texts.",
            field="body",
        )


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the fields of one prompt stand in a document: in its entry, or beside `prompts`."""

    body: Mapping[str, Any]
    place: int

    def __call__(self, name: str, inner: str | None = None) -> str:
        """The dotted path of a field, or of a field within it (of `recipe`, which is merged).

        Of a default, that of what was sent around it.
        """
        entries = self.body.get("prompts")
        entry = entries[self.place] if entries is not None else {}
        if inner is not None and all(
            (part.get(name) or {}).get(inner) is None for part in (entry, self.body)
        ):
            return self(name) if name in entry or name in self.body else "body"
        own = name in entry if inner is None else inner in (entry.get(name) or {})
        path = f"prompts.{self.place}.{name}" if own else name
        return path if inner is None else f"{path}.{inner}"


async def _checked(services: Services, principal: Principal, prompt: PromptSpec, path: Paths) -> PromptSpec:
    most = services.max_prompt_rows()
    if prompt.recipe.prompt_length > most:
        raise InvalidInputError(
            f"The prompt would have {prompt.recipe.prompt_length} rows; {most} is the most that this server "
            "can use: send a smaller prompt_length.",
            field=path("recipe", "prompt_length"),
            code="prompt_rows_exceeded",
        )
    check_settings(prompt.settings, path("settings"))
    await _check_servable(services, prompt, path)
    if prompt.initial_prompt is None:
        return prompt
    return await _pinned(services, principal, prompt, path)


async def _check_servable(services: Services, prompt: PromptSpec, path: Paths) -> None:
    """Refuse to train for hours what this server could not serve afterwards."""
    found = await services.text.run(
        faults,
        services,
        rows=prompt.recipe.prompt_length,
        template=prompt.template,
        labels=prompt.labels,
        settings={**prompt.settings, SENTINEL_SETTING: prompt.recipe.sentinel_before_target},
    )
    for fault in found:
        name, dot, rest = fault.field.partition(".")
        raise InvalidInputError(fault.message, field=f"{path(name)}{dot}{rest}", code="not_servable")


async def _pinned(services: Services, principal: Principal, prompt: PromptSpec, path: Paths) -> PromptSpec:
    """The prompt with its initial one named by number: an alias may move before the job runs."""
    base, field = services.base(), path("initial_prompt")
    reference = prompt.initial_prompt or ""
    version = await services.library.resolve(reference, principal.tenant, field)
    check_base(version, base.fingerprint, field)
    rows, width = version.manifest.length, version.manifest.width
    if (rows, width) != (prompt.recipe.prompt_length, base.width):
        raise InvalidInputError(
            f"The initial prompt is [{rows}, {width}], the one to train [{prompt.recipe.prompt_length}, "
            f"{base.width}]: send a prompt_length of {rows}, or another initial prompt.",
            field=field,
        )
    return replace(prompt, initial_prompt=f"{version.tenant}/{version.task}@{version.number}")


def named_sources(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Field, kind and value of every source that a valid document names."""
    entries = body.get("prompts") or []
    for path, holder in [("data", body), *((f"prompts.{n}.data", entry) for n, entry in enumerate(entries))]:
        data = holder.get("data") or {}
        for split in SPLITS:
            for kind, value in (data.get(split) or {}).items():
                yield f"{path}.{split}.{kind}", kind, value


def _check_sources(settings: Settings, sources: Iterable[tuple[str, str, str]]) -> None:
    """On a thread: it looks at the disk. Where workers run the jobs, paths are theirs to look at."""
    for field, kind, value in sources:
        if kind == "url":
            check_url(value, settings.tuning_data_urls, field)
        elif kind == "path" and settings.tuning_enabled:
            allowed_path(value, settings.tuning_data_paths, field)
