"""Measures against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from chorus_server.calibration.applying import probabilities, softmax
from chorus_server.calibration.fitting import Scaling
from chorus_server.calibration.measuring import BINS, measure_held_out, measure_raw, measures_of
from tests.server.calibration.test_fitting import _drawn

SHARES = [[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.3, 0.7]]
TRUTH = [0, 1, 0, 0]


def test_errors_are_weighed_by_the_rows_of_a_bin() -> None:
    found = measures_of(SHARES, TRUTH)
    assert [each.rows for each in found.bins] == [1, 1, 2]  # 0.6, 0.7, and 0.95 twice
    # 1 of 1 right at 0.6; 0 of 1 at 0.7; 1 of 2 at 0.95
    assert found.ece == pytest.approx((0.4 + 0.7 + 2 * 0.45) / 4)
    assert found.accuracy == 0.5
    assert found.brier == pytest.approx((2 * 0.0025 + 2 * 0.9025 + 2 * 0.16 + 2 * 0.49) / 4)
    assert found.nll == pytest.approx(-(2 * math.log(0.95) - math.log(0.95 / 0.05) + math.log(0.6 * 0.3)) / 4)


def test_what_is_certain_lies_in_the_last_bin() -> None:
    found = measures_of([[1.0, 0.0]] * 3, [0, 0, 1])
    assert len(found.bins) == 1
    assert found.bins[0].confidence == 1
    assert found.ece == pytest.approx(1 / 3)
    assert math.isfinite(found.nll)
    assert BINS == 15


def test_probabilities_that_are_as_often_right_as_they_say_have_no_error() -> None:
    assert measures_of([[0.8, 0.2]] * 10, [0] * 8 + [1] * 2).ece == pytest.approx(0)


def test_coverage_is_the_largest_share_that_is_right_often_enough() -> None:
    shares = [[top, 1 - top] for top in (0.99, 0.98, 0.9, 0.8, 0.7)]
    found = {each.accuracy: each for each in measures_of(shares, [0, 0, 1, 0, 0]).risk_coverage}
    assert found[0.8].coverage == 1  # 4 of 5
    assert found[0.8].confidence == pytest.approx(0.7)
    assert found[0.95].coverage == pytest.approx(2 / 5)
    assert found[0.95].confidence == pytest.approx(0.98)


def test_rows_of_one_confidence_are_answered_together() -> None:
    found = measures_of([[0.9, 0.1]] * 4, [0, 0, 0, 1]).risk_coverage
    assert [each.coverage for each in found] == [0.0] * 5
    assert {each.confidence for each in found} == {None}


def test_held_out_rows_are_measured_by_fits_that_have_not_seen_them() -> None:
    scores, truth = _drawn(1, rows=600, temperature=3.0)
    raw, held = measure_raw(scores, truth), measure_held_out(scores, truth, with_prior=True)
    assert held.accuracy == pytest.approx(raw.accuracy, abs=0.03)
    assert held.ece < raw.ece / 2
    assert held.nll < raw.nll


def test_a_prior_counts_against_its_label() -> None:
    assert probabilities([0.0, 0.0], Scaling(1.0, (math.log(3), 0.0))) == pytest.approx([0.25, 0.75])
    assert probabilities([0.0, -2.0], Scaling(2.0)) == pytest.approx(softmax([0.0, -1.0]))
    assert softmax([-math.inf, -math.inf]) == [0.5, 0.5]
