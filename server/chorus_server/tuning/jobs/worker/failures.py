"""Makes the record of a tuning job that failed, where more can be said than of any job."""

from __future__ import annotations

from typing import Any

from chorus_server.errors import ChorusError
from chorus_server.jobs import failures
from chorus_server.jobs.failures import failure
from chorus_server.tuning.training.state import PromptProgress
from prompts_store.errors import StoreError


def tuning_failure_of(error: Exception) -> dict[str, Any]:
    """The record of an error."""
    ours = isinstance(error, ChorusError | StoreError | failures.GaveUpError | OSError)
    if not ours and "RESOURCE_EXHAUSTED" in ascii(str(error)):
        return failure(
            "out_of_memory",
            "The device ran out of memory: start the job with a smaller recipe.micro_batch_size, fewer "
            "prompts or a smaller recipe.max_input_tokens.",
            "recipe.micro_batch_size",
        )
    return failures.failure_of(error)


def diverged(found: PromptProgress) -> dict[str, Any]:
    """The record of a job in which every prompt's loss stopped being a number, by one of them."""
    kept = "" if found.best_step is None else f" The values of step {found.best_step} are in the checkpoint."
    again = " Resumed, the job would stop there again: start a new one."
    return failure("diverged", f"The {found.message}.{kept}{again}", "recipe.learning_rate")
