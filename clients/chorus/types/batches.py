"""Batches."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from chorus.types.base import Wire
from chorus.types.tuning import AnyJob


class BatchJob(AnyJob):
    """A batch.

    Attributes:
        endpoint: the route that its lines are for.
        file: id of the file of lines.
        progress: how far it is: `rows` of `rows_in_all`, `failed` of them with an error; `faults`, by line.
        result: `rows`, `failed`, `output_file`, `error_file` and `usage`, once it has succeeded.
    """

    endpoint: str
    file: str
    metadata: dict[str, str] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)

    @property
    def output_file(self) -> str | None:
        """Id of the file of answers; None while there is none."""
        return self.result.get("output_file")

    @property
    def error_file(self) -> str | None:
        """Id of the file of the lines that failed; None where there is none."""
        return self.result.get("error_file")


class BatchPage(Wire):
    """Part of the list of batches, newest first."""

    batches: list[BatchJob]
    next_cursor: str | None = None
