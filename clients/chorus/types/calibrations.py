"""Calibrations of versions, and the jobs that make them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus.types.base import Wire


class ReliabilityBin(Wire):
    """The rows whose confidence lies in one of 15 bins of equal width: how many, and their means."""

    rows: int
    confidence: float
    accuracy: float


class CoveragePoint(Wire):
    """At `accuracy`, the share `coverage` of the rows can be answered without anybody's help: those whose
    likeliest label has a probability of at least `confidence`, which is None where none can."""

    accuracy: float
    coverage: float
    confidence: float | None = None


class CalibrationMeasures(Wire):
    """How well probabilities agree with how often they are right.

    Attributes:
        ece: expected calibration error over the bins.
        brier: mean squared distance from the truth, summed over the labels: 0 to 2.
        nll: mean negative log likelihood of the right label, in nats.
    """

    accuracy: float
    ece: float
    brier: float
    nll: float
    bins: list[ReliabilityBin] = Field(default_factory=list)
    risk_coverage: list[CoveragePoint] = Field(default_factory=list)


class BothMeasures(Wire):
    """Of the softmax of the log probabilities, and of what is answered instead, on rows that a fit has not
    seen."""

    raw: CalibrationMeasures
    calibrated: CalibrationMeasures


class Calibration(Wire):
    """One immutable calibration of a version: probabilities are `softmax((log p - prior) / temperature)`. The
    newest serves.

    Attributes:
        labels: it serves where these are ranked, in any order.
        matrix_dtype: it serves where the model's matrices have this type.
        prior: of each label, in nats; None if there is none.
        rows: how many it was fitted to.
        source: the job, and the split or the file, that it was fitted from.
    """

    task: str
    version: int
    calibration: int
    labels: list[str]
    matrix_dtype: str
    temperature: float
    prior: dict[str, float] | None = None
    rows: int
    measures: BothMeasures
    source: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    created_by: str = ""


class CalibrationPage(Wire):
    """Part of a version's calibrations, newest first."""

    calibrations: list[Calibration]
    next_cursor: str | None = None


class CalibrationJob(Wire):
    """A job that calibrates a version.

    Attributes:
        error: why it failed: `code`, `message` and sometimes `field`.
        progress: `rows` of `rows_in_all`.
        result: `calibration`, its number, once it has succeeded.
    """

    id: str
    task: str
    version: int
    status: str
    spec: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime
    created_by: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: dict[str, Any] | None = None
    progress: dict[str, Any] = Field(default_factory=dict)
    result: dict[str, Any] = Field(default_factory=dict)
    cancel_requested: bool = False
    attempt: int = 0

    @property
    def over(self) -> bool:
        """Whether it succeeded, failed or was cancelled."""
        return self.status in ("succeeded", "failed", "cancelled")
