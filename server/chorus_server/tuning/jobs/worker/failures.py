"""Makes the record of a failed job: a code, and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus_server.errors import ChorusError
from chorus_server.tuning.training.state import TrainingState
from prompts_store.errors import StoreError

MAX_RUNS_WITHOUT_PROGRESS = 5
_MESSAGE_CHARACTERS = 2_000


class GaveUpError(Exception):
    """The job was tried too often without progress."""

    def __init__(self, runs: int, step: int) -> None:
        super().__init__(
            f"The job was begun {runs} times from step {step} and never got to its next checkpoint: each "
            "time its process ended. Look into the server's log, and at its memory, then resume the job."
        )


def failure(code: str, message: str, field: str | None = None) -> dict[str, Any]:
    """The record of a failure."""
    return {"code": code, "message": message[:_MESSAGE_CHARACTERS], "field": field}


def log_line(record: Mapping[str, Any]) -> str:
    """The record as one line of a log, even if names in it contain line breaks."""
    text = f"{record['code']} in {record['field']}: " if record["field"] else f"{record['code']}: "
    return " ".join(f"{text}{record['message']}".split())


def failure_of(error: Exception) -> dict[str, Any]:
    """The record of an error."""
    if isinstance(error, ChorusError | StoreError):
        return failure(error.code, error.message, error.field)
    if isinstance(error, GaveUpError):
        return failure("gave_up", str(error))
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return failure(
            "disk_failed",
            f"The data folder could not be written ({reason}): look after its disk, then resume the job; it "
            "goes on from its last checkpoint.",
        )
    text = ascii(str(error))[1:-1]
    if "RESOURCE_EXHAUSTED" in text:
        return failure(
            "out_of_memory",
            "The device ran out of memory: start the job with a smaller recipe.micro_batch_size, fewer "
            "prompts or a smaller recipe.max_input_tokens.",
            "recipe.micro_batch_size",
        )
    # The error's text may name paths and addresses, so it goes to the log and not to the caller.
    return failure(
        "internal",
        f"The job stopped because of a defect ({type(error).__name__}): resume it. The log says more.",
    )


def diverged(state: TrainingState) -> dict[str, Any]:
    """The record of a job in which every prompt's loss stopped being a number."""
    found = next(standing for standing in state.standings if standing.status == "diverged")
    kept = "" if found.best_step is None else f" The values of step {found.best_step} are in the checkpoint."
    again = " Resumed, the job would stop there again: start a new one."
    return failure("diverged", f"The {found.message}.{kept}{again}", "recipe.learning_rate")
