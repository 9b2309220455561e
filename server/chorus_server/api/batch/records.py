"""Batches as JSON objects, by the names of docs/rest.md."""

from __future__ import annotations

from typing import Any

from chorus_server.api.records import state_json
from prompts_store.jobs.records import Job


def batch_json(job: Job) -> dict[str, Any]:
    """One batch."""
    return {
        "id": job.id,
        "status": job.status,
        "endpoint": job.spec.get("endpoint"),
        "file": job.spec.get("file"),
        "metadata": job.spec.get("metadata", {}),
        **state_json(job),
        "cancel_requested": job.cancel_requested,
        "attempt": job.attempt,
        "result": job.result,
    }
