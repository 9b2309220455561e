"""How attempts at a job end: in success, refused, cancelled, given back or lost. Used by one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

from chorus_server.jobs.failures import GaveUpError, failure_of, log_line
from chorus_server.jobs.leased import JobCancelledError, LeasedJob, ServiceStoppingError
from prompts_store.errors import LeaseLostError, StoreError

logger = logging.getLogger(__name__)

MAX_RUNS_WITHOUT_PROGRESS = 5

AttemptEnding = Literal["succeeded", "failed", "cancelled", "released", "lost"]
"""How an attempt at a job ended. `released`: the process stopped. `lost`: another took the job over."""

RecordOf = Callable[[Exception], dict[str, Any]]
"""Makes the record of a failed job of what was raised."""

_RUNS = "runs_without_progress"


def run_to_end(
    held: LeasedJob,
    progress: dict[str, Any],
    work: Callable[[], AttemptEnding],
    record_of: RecordOf = failure_of,
) -> AttemptEnding:
    """Run an attempt as far as it gets. Whatever goes wrong fails this job and nothing else. Never raises.

    Args:
        progress: the job's, as the attempt changes and stores it.
        work: the attempt; it ends the job itself if the job succeeds.
    """
    try:
        held.check()
        return work()
    except ServiceStoppingError:
        _give_back(held, progress)
        return "released"
    except LeaseLostError:
        logger.warning("another process has taken %s over; this attempt ends", held.job.id)
        return "lost"
    except JobCancelledError as cancelled:
        return end_job(held, progress, "cancelled", result=cancelled.result)
    except Exception as error:
        record = record_of(error)
        if record["code"] == "internal":
            extra = {"tenant": held.job.tenant}
            logger.error("%s stopped because of a defect", held.job.id, exc_info=error, extra=extra)
        return end_job(held, progress, "failed", record)


def count_attempt(progress: dict[str, Any], at: int, unit: str) -> None:
    """Count the attempt; give up a job that keeps killing its process without getting further.

    Args:
        at: how far it got before this attempt.
        unit: of that number, for people: `step`, `row`.

    Raises:
        GaveUpError: it was begun there too often.
    """
    name = f"begun_at_{unit}"
    runs = progress.get(_RUNS, 0) + 1 if progress.get(name) == at else 1
    if runs > MAX_RUNS_WITHOUT_PROGRESS:
        raise GaveUpError(runs - 1, f"{unit} {at}")
    progress |= {name: at, _RUNS: runs}


def end_job(
    held: LeasedJob,
    progress: dict[str, Any],
    status: Literal["failed", "cancelled"],
    error: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] | None = None,
) -> AttemptEnding:
    """End a job that did not succeed. Never raises."""
    progress[_RUNS] = 0
    try:
        held.tell([("failed", error)] if error else [])
        held.update(progress=progress)
        held.finish(status, error=error, result=result)
        if error is not None:
            logger.warning("%s failed: %s", held.job.id, log_line(error))
    except LeaseLostError:
        return "lost"
    except StoreError as failed:
        logger.warning(
            "the end of %s could not be stored, so it will run again: %s", held.job.id, failed.message
        )
        return "lost"
    return status


def _give_back(held: LeasedJob, progress: dict[str, Any]) -> None:
    """Put the job back into the queue. Never raises: the lease would run out by itself."""
    progress[_RUNS] = max(0, progress.get(_RUNS, 1) - 1)  # an orderly end does not count as a failure
    try:
        held.update(progress=progress)
        held.release()
    except StoreError as error:
        logger.warning("%s could not be given back: %s", held.job.id, error.message)
