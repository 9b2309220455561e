"""From a job document to what the store keeps: validated whole, bound to the resident base, references
pinned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from chorus_server.api.inference.sampling import check_default_settings
from chorus_server.api.inference.servable import faults
from chorus_server.api.jobs.seeing import require_files
from chorus_server.api.library.resolve import check_base
from chorus_server.api.schemas.common import MAX_UNFINISHED_JOBS
from chorus_server.api.services import Services
from chorus_server.errors import ForbiddenError, InvalidInputError
from chorus_server.settings import Settings
from chorus_server.tenancy.principal import Principal, Scope
from chorus_server.tuning.document.fields import FieldPaths
from chorus_server.tuning.document.job import JobDocument
from chorus_server.tuning.document.prompt import PromptDocument
from chorus_server.tuning.document.recipe import SENTINEL_SETTING, SPECIAL_TOKENS_SETTING
from chorus_server.tuning.jobs.stages.sources import allowed_path, check_url
from prompts_store.grants.rows import unknown
from prompts_store.jobs.jobs import MAX_SPEC_BYTES
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore


async def queue_job(services: Services, store: PromptStore, principal: Principal, sent: JobDocument) -> Job:
    """Check a job document against the server, and put the job into the queue of the store.

    Raises:
        InvalidInputError: the document is not valid; the error names the field.
        ForbiddenError: it moves an alias, and the key may not write prompts.
        StoreAnswerError: an `initial_prompt` does not exist.
        StoreError: a file is not there for the key, there are too many jobs, or the month has too few
            training steps left.
        NotReadyError: the base model is not loaded yet.
    """
    job = await services.text.run(_completed, sent)
    if job.promote and Scope.WRITE not in principal.scopes:
        raise ForbiddenError(
            f"The job would move @live, and the key lacks the scope {Scope.WRITE.value!r}: leave promote "
            "out, or use another key.",
            field="promote",
        )
    _check_names(principal, job, sent.paths)
    base = services.base()
    job = job.for_base(base.fingerprint)
    prompts = []
    for prompt, path in zip(job.prompts, sent.paths, strict=True):
        await _check_trials(services, job, prompt, path)
        prompts.append(await _pinned(services, principal, prompt, path))
    sources = list(sent.sources)
    await services.library.read(_check_sources, services.settings, sources)
    files = {field: value for field, kind, value in sources if kind == "file"}
    await require_files(services, principal, files)
    document = await services.text.run(_written, job.model_copy(update={"prompts": tuple(prompts)}))
    return await services.library.save(
        store.create_job,
        principal.tenant,
        "tuning",
        document,
        created_by=principal.name,
        files=files,
        max_unfinished=MAX_UNFINISHED_JOBS,
        training_steps=job.training_steps,
    )


def steps_of(job: Job) -> int:
    """The most training steps of a stored job; 0 if its document can be read no longer, so that it will
    fail."""
    try:
        return JobDocument.from_json(job.spec).training_steps
    except InvalidInputError:
        return 0


def _check_names(principal: Principal, job: JobDocument, paths: Sequence[FieldPaths]) -> None:
    """Refuse what the key may not name. Raises NotFoundError of the store, as for what is not there."""
    for kind, name, field in job.made(paths):
        if not principal.may_name(name):
            raise unknown(kind, principal.tenant, name, field=field)


def _completed(sent: JobDocument) -> JobDocument:
    """Runs on a thread, because the document may be as large as a body may be."""
    _check_size(sent.model_dump(exclude_unset=True))  # before each prompt gets the common fields
    return sent.completed()


def _written(job: JobDocument) -> dict[str, Any]:
    document = job.to_json()
    _check_size(document)
    return document


def _check_size(document: Mapping[str, Any]) -> None:
    size = len(to_json(document))
    if size > MAX_SPEC_BYTES:
        raise InvalidInputError(
            f"The job document has {size} bytes or more with all defaults filled in; the limit is "
            f"{MAX_SPEC_BYTES}: send fewer prompts or shorter texts.",
            field="body",
        )


async def _check_trials(
    services: Services, job: JobDocument, prompt: PromptDocument, path: FieldPaths
) -> None:
    """Refuse a job that would train for hours and make a version that this server could not serve."""
    most = services.max_prompt_rows()
    check_default_settings(prompt.settings, path("settings"))
    known: set[tuple[int, bool, bool]] = set()
    for variant in await services.text.run(job.variants, prompt):
        recipe = variant.recipe
        if recipe.prompt_length > most:
            varies = any("prompt_length" in knobs for knobs in job.trials)
            raise InvalidInputError(
                f"The prompt would have {recipe.prompt_length} rows; the limit of this server is {most}: "
                "send a smaller prompt_length.",
                field="sweep.space.prompt_length" if varies else path("recipe", "prompt_length"),
                code="prompt_rows_exceeded",
            )
        served = (recipe.prompt_length, recipe.sentinel_before_target, recipe.special_tokens)
        if served not in known:  # nothing else of a recipe is a matter of serving
            known.add(served)
            await _check_servable(services, variant, path)


async def _check_servable(services: Services, prompt: PromptDocument, path: FieldPaths) -> None:
    """Refuse a prompt that this server could not serve."""
    found = await services.text.run(
        faults,
        services,
        rows=prompt.recipe.prompt_length,
        template=prompt.template,
        labels=prompt.labels,
        settings={
            **prompt.settings,
            SENTINEL_SETTING: prompt.recipe.sentinel_before_target,
            SPECIAL_TOKENS_SETTING: prompt.recipe.special_tokens,
        },
    )
    for fault in found:
        name, dot, rest = fault.field.partition(".")
        raise InvalidInputError(fault.message, field=f"{path(name)}{dot}{rest}", code="not_servable")


async def _pinned(
    services: Services, principal: Principal, prompt: PromptDocument, path: FieldPaths
) -> PromptDocument:
    """The prompt with its initial prompt, if it has one, pinned to a version, because an alias may move
    before the job runs."""
    if prompt.initial_prompt is None:
        return prompt
    base, field = services.base(), path("initial_prompt")
    reference = prompt.initial_prompt or ""
    # Training goes on from its values, so asking it is not enough.
    version = await services.library.resolve(
        reference, principal.tenant, field, patterns=principal.tasks, right="read"
    )
    check_base(version, base.fingerprint, field)
    rows, width = version.manifest.length, version.manifest.width
    if (rows, width) != (prompt.recipe.prompt_length, base.width):
        raise InvalidInputError(
            f"The initial prompt is [{rows}, {width}] and the one to train [{prompt.recipe.prompt_length}, "
            f"{base.width}]: send a prompt_length of {rows}, or another initial prompt.",
            field=field,
        )
    pinned = f"{version.tenant}/{version.task}@{version.number}"
    return prompt.model_copy(update={"initial_prompt": pinned})


def _check_sources(settings: Settings, sources: Iterable[tuple[str, str, str]]) -> None:
    """Runs on a thread, because it looks at the disk. If workers run the jobs, they check paths
    themselves."""
    for field, kind, value in sources:
        if kind == "url":
            check_url(value, settings.tuning_data_urls, field)
        elif kind == "path" and settings.tuning_enabled:
            allowed_path(value, settings.tuning_data_paths, field)
