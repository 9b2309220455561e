"""How sure an answer is, by the formulas of the reference: of the four in circulation, these."""

from __future__ import annotations

from collections.abc import Sequence


def choice_confidence(probabilities: Sequence[float]) -> float:
    """0 where all n are equally probable, 1 where one has everything: `(max p - 1/n) / (1 - 1/n)`."""
    n = len(probabilities)
    return min(1.0, max(0.0, (max(probabilities) - 1 / n) / (1 - 1 / n)))


def score_confidence(probabilities: Sequence[float]) -> float:
    """1 less the mean distance from the most probable level, in units of that of a uniform answer from the
    middle; never below 0."""
    n = len(probabilities)
    mode = max(range(n), key=probabilities.__getitem__)
    distance = sum(p * abs(level - mode) for level, p in enumerate(probabilities))
    uniform = sum(abs(level - (n - 1) / 2) for level in range(n)) / n
    return min(1.0, max(0.0, 1 - distance / uniform))


def expected_level(probabilities: Sequence[float]) -> float:
    """The mean level, from 0."""
    return sum(level * p for level, p in enumerate(probabilities))
