"""Answers of the routes of calibrations."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from chorus_server.api.schemas.common import AnswerModel
from chorus_server.api.schemas.documents.calibration import CalibrationDocument
from chorus_server.api.schemas.jobs import JobState


class ReliabilityBin(AnswerModel):
    """The rows whose confidence lies in one of 15 bins of equal width."""

    rows: int
    confidence: float
    accuracy: float


class CoveragePoint(AnswerModel):
    """At this accuracy, the share of rows that can be answered without anybody's help."""

    accuracy: float
    coverage: float
    confidence: float | None = Field(
        description="Answer from this probability of the likeliest label on; null where nothing can be."
    )


class CalibrationMeasures(AnswerModel):
    """How well probabilities agree with how often they are right."""

    accuracy: float
    ece: float = Field(description="Expected calibration error over the bins.")
    brier: float = Field(description="Mean squared distance from the truth, summed over labels: 0 to 2.")
    nll: float = Field(description="Mean negative log likelihood of the right label, in nats.")
    bins: list[ReliabilityBin]
    risk_coverage: list[CoveragePoint]


class BothMeasures(AnswerModel):
    """Of the softmax of the log probabilities, and of what is answered instead."""

    raw: CalibrationMeasures
    calibrated: CalibrationMeasures = Field(
        description="Each row's by a fit on the other four fifths of the rows."
    )


class CalibrationAnswer(AnswerModel):
    """One calibration of a version. The newest serves."""

    task: str
    version: int
    calibration: int = Field(description="Its number: 1, 2, ... for each version.")
    labels: list[str] = Field(description="It serves where these are ranked, in any order.")
    matrix_dtype: str = Field(description="It serves where the model's matrices have this type.")
    temperature: float
    prior: dict[str, float] | None = Field(description="Of each label, in nats.")
    rows: int = Field(description="How many it was fitted to.")
    measures: BothMeasures
    source: dict[str, Any]
    created_at: datetime
    created_by: str


class CalibrationPage(AnswerModel):
    """Calibrations of a version, newest first."""

    calibrations: list[CalibrationAnswer]
    next_cursor: str | None


class CalibrationJobAnswer(JobState):
    """A job that calibrates a version."""

    task: str
    version: int
    spec: CalibrationDocument = Field(description="The document, with the labels filled in.")
    progress: dict[str, Any] = Field(description="`rows` of `rows_in_all`.")
    result: dict[str, Any] = Field(description="`calibration`, its number, once it has succeeded.")
