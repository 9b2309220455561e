"""Which jobs and data files of its tenant a caller's key may see, if it may name some tasks only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from chorus_server.api.services import Services
from chorus_server.tenancy.principal import Principal
from chorus_server.tuning.document.job import names_made
from prompts_store.errors import NotFoundError
from prompts_store.files.data_files import unknown_file
from prompts_store.files.records import DataFile
from prompts_store.jobs.records import Job, JobKind
from prompts_store.records import Page
from prompts_store.tasks.references import parse_reference


def _tuning(principal: Principal, job: Job) -> bool:
    """Whether the key may name all that the job makes."""
    return all(map(principal.may_name, names_made(job.spec)))


def _evaluation(principal: Principal, job: Job) -> bool:
    """Whether the key may name all that the job evaluates. One of the base model alone names nothing: it is
    for the key that made it."""
    subjects = job.spec.get("subjects", ())
    names = [each.get("task") or each.get("ensemble") or each.get("pack") for each in subjects]
    references = [parse_reference(name, tenant=job.tenant) for name in names if name]
    if not references:
        return principal.tasks is None or principal.key == job.spec.get("key")
    return all(principal.may_name(each.task, each.tenant) for each in references)


def _calibration(principal: Principal, job: Job) -> bool:
    """Whether the key may name the task whose version the job calibrates."""
    return principal.may_name(str(job.spec.get("task", "")))


def _batch(principal: Principal, job: Job) -> bool:
    """What a batch asks is in its file, so a key for some tasks sees only what was made with a key for the
    same."""
    return principal.tasks is None or job.spec.get("tasks") == list(principal.tasks)


MAY_SEE: Mapping[JobKind, Callable[[Principal, Job], bool]] = {
    "tuning": _tuning,
    "evaluation": _evaluation,
    "calibration": _calibration,
    "batch": _batch,
}
"""Whether a caller's key may see a job, by the job's kind."""


def may_see(principal: Principal, job: Job) -> bool:
    """Whether the caller's key may see a job of its tenant."""
    return MAY_SEE[job.kind](principal, job)


async def file_of(services: Services, principal: Principal, file: str, field: str = "file") -> DataFile:
    """A data file of the caller's tenant. One that the caller's key may not see is answered as one that is
    not there.

    Raises:
        NotFoundError: of the store, `unknown_file`.
    """
    library = services.library
    try:
        found = await library.read(library.store.get_file, principal.tenant, file)
    except NotFoundError as error:
        error.field = field
        raise
    if not (await _seen(services, principal, Page((found,), None))).items:
        raise unknown_file(file, field=field)
    return found


async def page_of_files(services: Services, principal: Principal, **which: Any) -> Page[DataFile]:
    """A page of the tenant's data files without those that the caller's key may not see.

    Args:
        which: as of `DataFiles.list_files`.
    """
    library = services.library
    page = await library.read(library.store.list_files, principal.tenant, **which)
    return await _seen(services, principal, page)


async def require_files(services: Services, principal: Principal, files: Mapping[str, str]) -> None:
    """Refuse a job that would read what the caller's key may not see.

    Args:
        files: their ids, by the field that named each.

    Raises:
        NotFoundError: of the store, `unknown_file`, with the field.
    """
    if principal.tasks is None:
        return  # the store looks when it creates the job
    for field, file in files.items():
        await file_of(services, principal, file, field)


async def _seen(services: Services, principal: Principal, page: Page[DataFile]) -> Page[DataFile]:
    if principal.tasks is None or not page.items:
        return page
    library, mine = services.library, partial(may_see, principal)
    found: Iterable[DataFile] = await library.read(
        library.store.files_seen, principal.tenant, page.items, principal.key or "", principal.name, mine
    )
    return Page(tuple(found), page.next_cursor)
