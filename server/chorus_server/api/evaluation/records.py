"""Evaluations as JSON objects, by the names of docs/rest.md."""

from __future__ import annotations

from typing import Any

from chorus_server.api.records import state_json
from prompts_store.jobs.records import Job


def evaluation_summary(job: Job) -> dict[str, Any]:
    """An evaluation in a list: what it is and how far it is, without its document and its result."""
    return {
        "id": job.id,
        "status": job.status,
        "subjects": list(job.spec.get("subjects", ())),
        **state_json(job),
        "cancel_requested": job.cancel_requested,
        "attempt": job.attempt,
    }


def evaluation_json(job: Job) -> dict[str, Any]:
    """One evaluation in full."""
    spec = {name: value for name, value in job.spec.items() if name != "key"}
    return {**evaluation_summary(job), "spec": spec, "result": job.result}
