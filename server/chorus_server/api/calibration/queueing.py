"""From a document of a calibration to a job: validated whole, bound to one version."""

from __future__ import annotations

from chorus_server.api.jobs.queueing import queue_asking_job, require_infer
from chorus_server.api.library.resolve import check_base
from chorus_server.api.schemas.documents.calibration import CalibrationDocument
from chorus_server.api.services import Services
from chorus_server.tenancy.principal import Principal
from prompts_store.jobs.records import Job
from prompts_store.jobs.rows import unknown_job
from prompts_store.store import PromptStore


async def queue_calibration(
    services: Services,
    store: PromptStore,
    principal: Principal,
    task: str,
    number: int,
    sent: CalibrationDocument,
) -> Job:
    """Check a document against the server and the version, and put the job into the queue of the store.

    Args:
        task: of the caller's own tenant.

    Raises:
        InvalidInputError: the document is not valid; the error names the field.
        ModelMismatchError: the version belongs to another base.
        ForbiddenError: the key may not ask prompts.
        StoreError: the version or the file is not there for the key, or there are too many jobs.
        NotReadyError: the base model is not loaded yet.
    """
    require_infer(principal, "A calibration asks the prompt")
    library, base = services.library, services.base()
    version = await library.read(library.store.get_version, principal.tenant, task, number)
    check_base(version, base.fingerprint, "version")
    document = sent.completed(version.manifest.template, version.manifest.labels)
    about = {"base_fingerprint": base.fingerprint, "task": task, "version": number}
    spec = {**about, "document": document.to_json()}
    return await queue_asking_job(services, store, principal, "calibration", spec, {"file": document.file})


async def calibration_job_of(services: Services, principal: Principal, task: str, job: str) -> Job:
    """A job that calibrates a version of a task of the caller's tenant.

    Raises:
        NotFoundError: of the store, `unknown_job`.
    """
    store = services.library.store
    found = await services.library.read(store.get_job, principal.tenant, job, kind="calibration")
    if found.spec.get("task") != task:
        raise unknown_job(job, "calibration")
    return found
