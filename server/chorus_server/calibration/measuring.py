"""How well probabilities of labels agree with how often they are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from chorus_server.calibration.applying import probabilities
from chorus_server.calibration.fitting import Scaling, Scores, fit

BINS = 15
"""Of equal width, over the confidence (Naeini et al. 2015, Guo et al. 2017)."""

WANTED_ACCURACIES = (0.8, 0.9, 0.95, 0.98, 0.99)
FOLDS = 5
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True)
class Bin:
    """The rows whose confidence lies in one bin.

    Attributes:
        confidence, accuracy: means over the rows.
    """

    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """A point of the risk-coverage curve (El-Yaniv & Wiener 2010): at `accuracy`, answer the share `coverage`
    by itself, and leave the rest to somebody else.

    Attributes:
        accuracy: that was wanted.
        coverage: the largest share of rows, the most confident first, that has it; 0 if none does.
        confidence: of the last of them: answer by yourself from here on. None if there is none.
    """

    accuracy: float
    coverage: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Measures:
    """Of probabilities on rows whose answers are known.

    Attributes:
        ece: expected calibration error: the mean distance between confidence and accuracy, over `bins`.
        brier: mean squared distance from the truth, summed over the labels: 0 to 2.
        nll: mean negative log likelihood of the right label, in nats.
        bins: those that have rows, in order.
    """

    accuracy: float
    ece: float
    brier: float
    nll: float
    bins: tuple[Bin, ...]
    risk_coverage: tuple[Coverage, ...]


def measures_of(shares: Sequence[Sequence[float]], truth: Sequence[int]) -> Measures:
    """Measures of probabilities [R][C]. At least one row."""
    tops = [max(row) for row in shares]
    hits = [row.index(top) == right for row, top, right in zip(shares, tops, truth, strict=True)]
    rows = len(shares)
    bins = _bins(tops, hits)
    square = sum(
        sum((share - (place == right)) ** 2 for place, share in enumerate(row))
        for row, right in zip(shares, truth, strict=True)
    )
    likelihood = sum(
        math.log(max(_LEAST_PROBABILITY, row[right])) for row, right in zip(shares, truth, strict=True)
    )
    return Measures(
        accuracy=sum(hits) / rows,
        ece=sum(each.rows * abs(each.confidence - each.accuracy) for each in bins) / rows,
        brier=square / rows,
        nll=-likelihood / rows,
        bins=bins,
        risk_coverage=risk_coverage(tops, hits),
    )


def measure_held_out(scores: Scores, truth: Sequence[int], *, with_prior: bool) -> Measures:
    """Measures of calibrated probabilities, each row's by a fit on the other four fifths of the rows: a fit
    looks better on its own rows than it is."""
    shares: list[list[float]] = [[] for _ in scores]
    for fold in range(FOLDS):
        others = [n for n in range(len(scores)) if n % FOLDS != fold]
        found = fit([scores[n] for n in others], [truth[n] for n in others], with_prior=with_prior)
        for n in range(fold, len(scores), FOLDS):
            shares[n] = probabilities(scores[n], found)
    return measures_of(shares, truth)


def measure_raw(scores: Scores, truth: Sequence[int]) -> Measures:
    """Measures of what is answered without a calibration."""
    return measures_of([probabilities(row, Scaling(1.0)) for row in scores], truth)


def _bins(tops: Sequence[float], hits: Sequence[bool]) -> tuple[Bin, ...]:
    pairs = sorted((min(BINS - 1, int(top * BINS)), top, hit) for top, hit in zip(tops, hits, strict=True))
    found = []
    for _, group in groupby(pairs, lambda pair: pair[0]):
        some = list(group)
        confidence = sum(top for _, top, _ in some) / len(some)
        found.append(Bin(len(some), confidence, sum(hit for *_, hit in some) / len(some)))
    return tuple(found)


def risk_coverage(tops: Sequence[float], hits: Sequence[bool]) -> tuple[Coverage, ...]:
    """What can be answered at each of `WANTED_ACCURACIES`, given how sure each answer is and whether it is
    right."""
    return tuple(_coverage(tops, hits, wanted) for wanted in WANTED_ACCURACIES)


def _coverage(tops: Sequence[float], hits: Sequence[bool], wanted: float) -> Coverage:
    """Rows of equal confidence are answered together or not at all."""
    pairs = sorted(zip(tops, hits, strict=True), key=lambda pair: -pair[0])
    best, answered, right = Coverage(wanted, 0.0, None), 0, 0
    for top, group in groupby(pairs, lambda pair: pair[0]):
        some = [hit for _, hit in group]
        answered, right = answered + len(some), right + sum(some)
        if right / answered >= wanted:
            best = Coverage(wanted, answered / len(pairs), top)
    return best
