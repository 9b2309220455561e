"""What it takes to queue a job that asks the engine, whatever the kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus_server.api.jobs.seeing import require_files
from chorus_server.api.schemas.common import MAX_UNFINISHED_JOBS
from chorus_server.api.services import Services
from chorus_server.errors import ForbiddenError
from chorus_server.tenancy.principal import Principal, Scope
from prompts_store.jobs.records import Job, JobKind
from prompts_store.store import PromptStore


def require_infer(principal: Principal, what: str) -> None:
    """Refuse a key that may not ask prompts.

    Args:
        what: the clause that says what the job does: `a batch asks prompts`.

    Raises:
        ForbiddenError: it lacks the scope.
    """
    if Scope.INFER not in principal.scopes:
        raise ForbiddenError(f"{what}, and the key lacks the scope {Scope.INFER.value!r}: use another key.")


async def queue_asking_job(
    services: Services,
    store: PromptStore,
    principal: Principal,
    kind: JobKind,
    spec: Mapping[str, Any],
    files: Mapping[str, str],
) -> Job:
    """Put a job into the queue of the store, for the caller's key.

    Args:
        spec, files: as `PromptStore.create_job` takes them.

    Raises:
        StoreError: a file is not there for the key, or there are too many jobs.
    """
    await require_files(services, principal, files)
    return await services.library.save(
        store.create_job,
        principal.tenant,
        kind,
        {**spec, "key": principal.key},
        created_by=principal.name,
        files=files,
        max_unfinished=MAX_UNFINISHED_JOBS,
    )
