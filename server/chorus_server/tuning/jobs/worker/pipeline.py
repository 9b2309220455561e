"""Runs one attempt at a job, stage after stage. Used by one thread.

    validate  fetch, read, check, tokenise
    compile   measure how large a dispatch may be, and compile off the device's thread
    train     slices on the device's thread, checkpoints on the writer's
    publish   versions, ensemble, aliases

A stage is a function of the attempt and of what the stages before it found. Whatever goes wrong fails this
job and nothing else.
"""

from __future__ import annotations

import logging
import shutil
from typing import Any, Literal

from chorus_server.jobs.leased import JobCancelledError, ServiceStoppingError
from chorus_server.tuning.jobs.attempts.attempt import Attempt
from chorus_server.tuning.jobs.stages.compile import compile_run
from chorus_server.tuning.jobs.stages.publish import is_good, publish, result_of
from chorus_server.tuning.jobs.stages.train import train
from chorus_server.tuning.jobs.stages.validate import validate
from chorus_server.tuning.jobs.worker.failures import (
    MAX_RUNS_WITHOUT_PROGRESS,
    GaveUpError,
    diverged,
    failure_of,
    log_line,
)
from prompts_store.errors import LeaseLostError, StoreError

logger = logging.getLogger(__name__)

AttemptEnding = Literal["succeeded", "failed", "cancelled", "released", "lost"]
"""How an attempt at a job ended. `released`: the process stopped. `lost`: another took the job over."""


def make_attempt(attempt: Attempt) -> AttemptEnding:
    """Run the job as far as it gets. Never raises."""
    held = attempt.held
    try:
        held.check()
        _count(attempt)
        validated = validate(attempt, attempt.document())
        run, programs = compile_run(attempt, validated)
        state = train(attempt, validated, run, programs)
        if not any(map(is_good, state.standings)):
            return _end(attempt, "failed", diverged(state), result_of(validated, state))
        publish(attempt, validated, run, state)
        return "succeeded"
    except ServiceStoppingError:
        _give_back(attempt)
        return "released"
    except LeaseLostError:
        logger.warning("another process has taken %s over; this attempt ends", held.job.id)
        return "lost"
    except JobCancelledError:
        return _end(attempt, "cancelled")
    except Exception as error:
        record = failure_of(error)
        if record["code"] == "internal":
            logger.error("%s stopped because of a defect", held.job.id, exc_info=error)
        return _end(attempt, "failed", record)


def _count(attempt: Attempt) -> None:
    """Count the attempt; give up a job that keeps killing its process without getting further."""
    progress, step = attempt.progress, attempt.progress.get("checkpoint_step", 0)
    same = progress.get("begun_at_step") == step
    runs = progress.get("runs_without_progress", 0) + 1 if same else 1
    if runs > MAX_RUNS_WITHOUT_PROGRESS:
        raise GaveUpError(runs - 1, step)
    progress |= {"begun_at_step": step, "runs_without_progress": runs}


def _end(
    attempt: Attempt,
    status: Literal["failed", "cancelled"],
    error: dict[str, Any] | None = None,
    result: dict[str, Any] | None = None,
) -> AttemptEnding:
    """End the job without versions. Never raises."""
    held = attempt.held
    attempt.progress["runs_without_progress"] = 0
    try:
        held.tell([("failed", error)] if error else [])
        attempt.save_progress()
        held.finish(status, error=error, result=result)
        # Not earlier: another process might have taken the job over. Checkpoints stay for a resumption;
        # downloads can be fetched again.
        shutil.rmtree(attempt.folder / "downloads", ignore_errors=True)
        if error is not None:
            logger.warning("%s failed: %s", held.job.id, log_line(error))
    except LeaseLostError:
        return "lost"
    except StoreError as failure:
        logger.warning(
            "the end of %s could not be stored, so it will run again: %s", held.job.id, failure.message
        )
        return "lost"
    return status


def _give_back(attempt: Attempt) -> None:
    """Put the job back into the queue. Never raises: the lease would run out by itself."""
    runs = attempt.progress.get("runs_without_progress", 1)
    attempt.progress["runs_without_progress"] = max(0, runs - 1)  # an orderly end does not count as a failure
    try:
        attempt.save_progress()
        attempt.held.release()
    except StoreError as error:
        logger.warning("%s could not be given back: %s", attempt.job.id, error.message)
