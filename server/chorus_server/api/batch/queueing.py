"""From a document of a batch to a job."""

from __future__ import annotations

from chorus_server.api.jobs.queueing import queue_asking_job, require_infer
from chorus_server.api.schemas.documents.batch import BatchDocument
from chorus_server.api.services import Services
from chorus_server.tenancy.principal import Principal
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
    require_infer(principal, "A batch asks prompts")
    sent.check()
    document = sent.for_base(services.base().fingerprint)
    tasks = None if principal.tasks is None else list(principal.tasks)
    spec = {**document.to_json(), "tasks": tasks}
    return await queue_asking_job(services, store, principal, "batch", spec, {file_field: document.file})
