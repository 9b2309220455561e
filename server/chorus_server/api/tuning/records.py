"""Files, jobs and events as JSON objects, by the names of docs/rest.md."""

from __future__ import annotations

from typing import Any

from chorus_server.api.records import state_json
from chorus_server.tuning.document.earlier_names import (
    renamed_facts,
    renamed_progress,
    renamed_result,
    renamed_spec,
)
from prompts_store.files.records import DataFile
from prompts_store.jobs.records import Job, JobEvent

_PRIVATE = ("key", "tasks")
"""Of a spec: by which key a job asks, which is nobody's business who sees the job."""


def file_json(file: DataFile) -> dict[str, Any]:
    """One file."""
    return {
        "id": file.id,
        "name": file.name,
        "size_bytes": file.size_bytes,
        "sha256": file.sha256,
        "created_at": file.created_at,
        "created_by": file.created_by,
    }


def summary_json(job: Job) -> dict[str, Any]:
    """A job in a list: what it is and how far it is, without its document and its results."""
    return {
        "id": job.id,
        "status": job.status,
        "tasks": tasks_of(job),
        **state_json(job),
        "progress": renamed_progress(job.progress),
        "cancel_requested": job.cancel_requested,
        "paused": job.paused,
        "attempt": job.attempt,
    }


def job_json(job: Job) -> dict[str, Any]:
    """One job in full."""
    return {**summary_json(job), "spec": renamed_spec(job.spec), "result": renamed_result(job.result)}


def any_job_summary(job: Job) -> dict[str, Any]:
    """A job of any kind in a list."""
    summary = summary_json(job)
    del summary["tasks"]
    return {"id": summary.pop("id"), "kind": job.kind, **summary}


def any_job_json(job: Job) -> dict[str, Any]:
    """One job of any kind in full."""
    spec = {name: value for name, value in renamed_spec(job.spec).items() if name not in _PRIVATE}
    return {**any_job_summary(job), "spec": spec, "result": renamed_result(job.result)}


def event_json(event: JobEvent) -> dict[str, Any]:
    """One event."""
    return {"seq": event.seq, "at": event.at, "kind": event.kind, "data": renamed_facts(event.data)}


def tasks_of(job: Job) -> list[str]:
    """Full names of the tasks for which it makes versions, each once."""
    names = dict.fromkeys(prompt["task"] for prompt in job.spec.get("prompts", ()))
    return [f"{job.tenant}/{name}" for name in names]
