from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chorus_server.api.decisions.confidence import choice_confidence, expected_level, score_confidence

WEIGHTS = st.lists(st.floats(0, 1), min_size=2, max_size=10).filter(lambda weights: sum(weights) > 1e-6)


def shares(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize(
    ("probabilities", "choice", "score", "level"),
    [
        ([0.5, 0.5], 0.0, 0.0, 0.5),
        ([1.0, 0.0], 1.0, 1.0, 0.0),
        ([0.7, 0.2, 0.1], 0.55, 0.4, 0.4),  # by hand: (0.7 - 1/3) / (2/3); 1 - 0.4 / (2/3)
        ([0.25] * 4, 0.0, 0.0, 1.5),  # from the first of equals it is 1.5 against 1: never below 0
        ([0.0, 1.0, 0.0], 1.0, 1.0, 1.0),
    ],
)
def test_by_hand(probabilities: list[float], choice: float, score: float, level: float) -> None:
    assert choice_confidence(probabilities) == pytest.approx(choice)
    assert score_confidence(probabilities) == pytest.approx(score)
    assert expected_level(probabilities) == pytest.approx(level)


@given(WEIGHTS)
def test_always_between_0_and_1(weights: list[float]) -> None:
    probabilities = shares(weights)
    assert 0 <= choice_confidence(probabilities) <= 1
    assert 0 <= score_confidence(probabilities) <= 1
    assert -1e-9 <= expected_level(probabilities) <= len(weights) - 1 + 1e-9


@given(WEIGHTS.filter(lambda weights: len(weights) == 2))
def test_of_two_levels_both_are_the_same(weights: list[float]) -> None:
    probabilities = shares(weights)
    assert score_confidence(probabilities) == pytest.approx(choice_confidence(probabilities), abs=1e-9)
