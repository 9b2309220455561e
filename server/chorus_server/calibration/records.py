"""From scores of rows whose answers are known to the record that is stored beside a version."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from chorus_server.calibration.fitting import Scores, fit
from chorus_server.calibration.measuring import Measures, measure_held_out, measure_raw
from prompts_store.records import LEAST_CALIBRATION_ROWS, FittedCalibration

T = TypeVar("T")

FITTED_ROWS = 2_000
"""Of more rows, so many are taken, evenly spaced: they give one number or a few, and time is better spent."""

WITH_PRIOR = True
"""What measured better: see docs/quality.md."""


def calibration_of(
    scores: Scores,
    truth: Sequence[int],
    *,
    labels: Sequence[str],
    matrix_dtype: str,
    source: Mapping[str, Any],
    with_prior: bool = WITH_PRIOR,
) -> FittedCalibration | None:
    """Fit, and measure; None if too few rows have finite log probabilities.

    Args:
        truth: the place of each row's right label.
    """
    pairs = [
        (list(row), right) for row, right in zip(scores, truth, strict=True) if all(map(math.isfinite, row))
    ]
    if len(pairs) < LEAST_CALIBRATION_ROWS:
        return None
    taken = spread(pairs, FITTED_ROWS)
    known, right = [row for row, _ in taken], [place for _, place in taken]
    found = fit(known, right, with_prior=with_prior)
    measures = {
        "raw": measures_json(measure_raw(known, right)),
        "calibrated": measures_json(measure_held_out(known, right, with_prior=with_prior)),
    }
    return FittedCalibration(
        labels=tuple(labels),
        matrix_dtype=matrix_dtype,
        temperature=found.temperature,
        prior=found.prior,
        rows=len(taken),
        measures=measures,
        source=dict(source),
    )


def spread(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of the items, evenly spaced."""
    if len(items) <= most:
        return items
    return [items[n * len(items) // most] for n in range(most)]


def measures_json(measures: Measures) -> dict[str, Any]:
    """As JSON, with six decimals."""
    found: dict[str, Any] = _rounded(asdict(measures))
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
