"""A job of the kind `batch` as OpenAI's clients read it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prompts_store.jobs.records import Job

_ENDED = {"succeeded": "completed", "failed": "failed", "cancelled": "cancelled"}
WINDOW = "24h"


def openai_batch(job: Job) -> dict[str, Any]:
    """One batch."""
    progress, result, over = job.progress, job.result, _time(job.finished_at)
    rows, failed = progress.get("rows", 0), progress.get("failed", 0)
    stopping = _time(job.finished_at) if job.status == "cancelled" else None
    return {
        "id": job.id,
        "object": "batch",
        "endpoint": job.spec.get("endpoint"),
        "errors": _errors(job),
        "input_file_id": job.spec.get("file"),
        "completion_window": WINDOW,
        "status": _status(job),
        "output_file_id": result.get("output_file"),
        "error_file_id": result.get("error_file"),
        "created_at": _time(job.created_at),
        "in_progress_at": _time(job.started_at),
        "expires_at": None,
        "finalizing_at": over if job.status == "succeeded" else None,
        "completed_at": over if job.status == "succeeded" else None,
        "failed_at": over if job.status == "failed" else None,
        "expired_at": None,
        "cancelling_at": stopping,
        "cancelled_at": stopping,
        "request_counts": {
            "total": progress.get("rows_in_all", 0),
            "completed": rows - failed,
            "failed": failed,
        },
        "usage": _usage(result.get("usage")),
        "metadata": job.spec.get("metadata") or None,
    }


def _status(job: Job) -> str:
    if job.status in _ENDED:
        return _ENDED[job.status]
    if job.cancel_requested:
        return "cancelling"
    if "rows_in_all" not in job.progress:
        return "validating"
    return "finalizing" if job.progress.get("phase") == "writing" else "in_progress"


def _errors(job: Job) -> dict[str, Any] | None:
    if job.status != "failed" or job.error is None:
        return None
    code, message, param = (job.error.get(name) for name in ("code", "message", "field"))
    whole = [{"code": code, "line": None, "message": message, "param": param}]
    return {"object": "list", "data": job.progress.get("faults") or whole}


def _usage(used: dict[str, int] | None) -> dict[str, Any] | None:
    if used is None:
        return None
    return {
        "input_tokens": used["input_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": used["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": used["input_tokens"] + used["output_tokens"],
    }


def _time(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
