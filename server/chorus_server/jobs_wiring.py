"""Wiring of the jobs whose work is requests to the engine of a serving process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from chorus_server.api.batch.lines import Endpoint
from chorus_server.api.batch.work import run_batch
from chorus_server.api.calibration.work import calibrate_version
from chorus_server.api.door.routing import BodyType
from chorus_server.api.evaluation.work import evaluate
from chorus_server.api.http.errors import error_response
from chorus_server.api.jobs.engine_jobs import EngineJobs, JobWork
from chorus_server.api.openai.errors import openai_error
from chorus_server.api.routes.classify import answer_classify
from chorus_server.api.routes.decisions import answer_decisions
from chorus_server.api.routes.generate import answer_generate
from chorus_server.api.routes.openai_chat import answer_chat
from chorus_server.api.routes.openai_completions import answer_completions
from chorus_server.api.schemas.decisions import DecisionsBody
from chorus_server.api.schemas.documents.batch import BatchEndpoint
from chorus_server.api.schemas.inference import ClassifyBody, GenerateBody
from chorus_server.api.schemas.openai.chat import ChatBody
from chorus_server.api.schemas.openai.completions import CompletionsBody
from chorus_server.api.services import Services
from chorus_server.jobs.runner import RunnerConfig, this_process
from prompts_store.jobs.records import JobKind
from prompts_store.tenants.records import Change

FOLDER_OF_JOBS = "jobs"
"""Folder of what these jobs have worked off, in the data folder."""

ENDPOINTS: Mapping[BatchEndpoint, Endpoint] = {
    "/v1/generate": Endpoint(BodyType(GenerateBody), answer_generate, error_response),
    "/v1/classify": Endpoint(BodyType(ClassifyBody), answer_classify, error_response),
    "/v1/decisions": Endpoint(BodyType(DecisionsBody), answer_decisions, openai_error),
    "/v1/completions": Endpoint(BodyType(CompletionsBody), answer_completions, openai_error),
    "/v1/chat/completions": Endpoint(BodyType(ChatBody), answer_chat, openai_error),
}
"""The routes whose bodies the lines of a batch may have, and what answers them there."""

JOBS_AT_ONCE = 4
"""Jobs of each kind that run side by side, each of another tenant: nobody waits for another's long one."""

WORK_OF_KINDS: Mapping[JobKind, JobWork] = {
    "batch": partial(run_batch, ENDPOINTS),
    "calibration": calibrate_version,
    "evaluation": evaluate,
}


JOB_LOOK_SECONDS = 5.0
"""A serving process hears of jobs through the change feed. So it looks by itself for those alone whose lease
has run out."""


class QueuedJobs:
    """Tells runners what other processes queued: a `Rememberer` that remembers nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def changed(self, changes: Sequence[Change]) -> None:
        """Look for jobs of the kinds that were queued, and for all of a tenant that may run them again."""
        if any(change.kind == "tenant_resumed" for change in changes):
            self._services.wake_jobs()
        elif kinds := {change.subject for change in changes if change.kind == "job_queued"}:
            self._services.wake_jobs(kinds)

    def forget(self) -> None:
        """Anything may have been queued."""
        self._services.wake_jobs()

    def confirm(self, at: float) -> None:
        """Nothing else was."""


def start_engine_jobs(services: Services, kinds: Mapping[JobKind, JobWork] = WORK_OF_KINDS) -> None:
    """Take jobs of these kinds from now on."""
    settings = services.settings
    config = RunnerConfig(
        folder=settings.data_dir / FOLDER_OF_JOBS,
        owner=this_process(),
        at_once=JOBS_AT_ONCE,
        look_seconds=JOB_LOOK_SECONDS,
    )
    services.engine_jobs = tuple(EngineJobs(kind, work, services, config) for kind, work in kinds.items())
    for runner in services.engine_jobs:
        runner.start()
