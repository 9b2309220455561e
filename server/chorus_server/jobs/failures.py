"""Makes the record of a failed job: a code, and a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chorus_server.errors import ChorusError
from prompts_store.errors import StoreError

_MESSAGE_CHARACTERS = 2_000


class GaveUpError(Exception):
    """The job was tried too often without progress."""

    def __init__(self, runs: int, place: str) -> None:
        super().__init__(
            f"The job was begun {runs} times from {place} and never got further: each time its process "
            "ended. Look into the server's log, and at its memory, then resume the job."
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
            "goes on from what it had kept.",
        )
    # The error's text may name paths and addresses, so it goes to the log and not to the caller.
    return failure(
        "internal",
        f"The job stopped because of a defect ({type(error).__name__}): resume it. The log says more.",
    )
