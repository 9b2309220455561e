"""From a document of a batch to a job."""

from __future__ import annotations

from chorus_server.api.jobs.seeing import require_files
from chorus_server.api.services import Services
from chorus_server.errors import ForbiddenError
from chorus_server.tenancy.principal import Principal, Scope
from chorus_server.tuning.document.batch import BatchDocument
from chorus_server.tuning.document.fields import refuse
from prompts_store.jobs.records import Job
from prompts_store.store import PromptStore


async def queue_batch(
    services: Services,
    store: PromptStore,
    principal: Principal,
    sent: BatchDocument,
    file_field: str = "file",
) -> Job:
    """Check a document against the server, and put the job into the queue of the store.

    Args:
        file_field: what the caller calls the field of the file.

    Raises:
        InvalidInputError: the document is not valid; the error names the field.
        ForbiddenError: the key may not ask prompts.
        StoreError: the file is not there for the key, or there are too many jobs.
        NotReadyError: the base model is not loaded yet.
    """
    if Scope.INFER not in principal.scopes:
        raise ForbiddenError(
            f"A batch asks prompts, and the key lacks the scope {Scope.INFER.value!r}: use another key."
        )
    sent.check()
    base = services.base()
    if sent.base_fingerprint not in (None, base.fingerprint):
        message = "is of another base model; leave it out, or send the job to a server of that model"
        refuse(message, "base_fingerprint", code="base_mismatch")
    files = {file_field: sent.file}
    await require_files(services, principal, files)
    document = sent.model_copy(update={"base_fingerprint": base.fingerprint})
    tasks = None if principal.tasks is None else list(principal.tasks)
    return await services.library.save(
        store.create_job,
        principal.tenant,
        "batch",
        {**document.to_json(), "key": principal.key, "tasks": tasks},
        created_by=principal.name,
        files=files,
        max_unfinished=services.settings.tuning_max_unfinished_jobs,
    )
