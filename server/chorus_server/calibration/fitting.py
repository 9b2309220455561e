"""Fits a temperature, and if wanted a prior a label, to rows whose answers are known.

Probabilities are `softmax((log p - prior) / T)`. With `a = 1 / T` and `b = -prior / T` the negative log
likelihood is convex in `a` and `b` together. It is lowered in `a` by Newton's method (temperature scaling:
Guo et al. 2017), then in one `b` after another, until nothing moves any more. `b` is held near zero by
`HOLD / 2` times its squares: that of a label which no row answers would else be minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prompts_store.records import LEAST_TEMPERATURE, MOST_TEMPERATURE

HOLD = 1.0
_ROUNDS = 200
_STILL = 1e-6
_ENOUGH = 1e-4
"""Where rounds of both end: a change of a ten-thousandth of a nat is of no use to anybody."""
_FAR = 2.0

Scores = Sequence[Sequence[float]]
"""[R][C]: the log probability of each label on each row."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """What was fitted.

    Attributes:
        prior: for each label, in nats, summing to zero; None if none was fitted.
    """

    temperature: float
    prior: tuple[float, ...] | None = None


def fit(scores: Scores, truth: Sequence[int], *, with_prior: bool = False) -> Scaling:
    """The temperature, and the prior if wanted, of least negative log likelihood.

    Where every temperature is as good as any other, because all labels are alike, it is 1. Rows with a log
    probability that is not finite say nothing about it, and are left out.

    Args:
        truth: [R], the place of each row's right label.

    Raises:
        ValueError: no row is left.
    """
    rows = [
        (list(row), right) for row, right in zip(scores, truth, strict=True) if all(map(math.isfinite, row))
    ]
    if not rows:
        raise ValueError("a fit needs rows with finite log probabilities")
    # The greatest is 0 on each row, so that no exponential overflows.
    shifted = [[score - max(row) for score in row] for row, _ in rows]
    right = [place for _, place in rows]
    offsets = [0.0] * len(shifted[0])
    scale = 1.0
    for _ in range(_ROUNDS):
        before = [scale, *offsets]
        scale = _scale(shifted, right, offsets, scale)
        if not with_prior:
            break
        _shift(shifted, right, scale, offsets)
        if max(abs(now - then) for now, then in zip([scale, *offsets], before, strict=True)) < _ENOUGH:
            break
    if not with_prior:
        return Scaling(1 / scale)
    middle = sum(offsets) / len(offsets)
    return Scaling(1 / scale, tuple((middle - offset) / scale for offset in offsets))


def _scale(scores: Scores, right: Sequence[int], offsets: Sequence[float], start: float) -> float:
    """The best `a` for these `b`, by Newton's method, with a bracket that it may not leave."""
    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    scale = start
    for _ in range(_ROUNDS):
        slope, curvature = _slope(scores, right, offsets, scale)
        if curvature < 1e-12 and abs(slope) < 1e-9 * len(scores):
            return scale  # all labels alike, or the end of a plateau
        if slope > 0:
            high = scale
        else:
            low = scale
        wanted = scale - slope / curvature if curvature > 0 else math.nan
        following = wanted if low < wanted < high else math.sqrt(low * high)
        if abs(following - scale) < _STILL * scale:
            return following
        scale = following
    return scale


def _slope(
    scores: Scores, right: Sequence[int], offsets: Sequence[float], scale: float
) -> tuple[float, float]:
    """First and second derivative of the negative log likelihood by `a`."""
    slope = curvature = 0.0
    for row, place in zip(scores, right, strict=True):
        weights = _weights(row, offsets, scale)
        total = sum(weights)
        mean = sum(weight * score for weight, score in zip(weights, row, strict=True)) / total
        square = sum(weight * score * score for weight, score in zip(weights, row, strict=True)) / total
        slope += mean - row[place]
        curvature += max(0.0, square - mean * mean)
    return slope, curvature


def _shift(scores: Scores, right: Sequence[int], scale: float, offsets: list[float]) -> None:
    """One step of Newton's method in each `b`, halved until it lowers the objective. Changes `offsets`."""
    weights = [_weights(row, offsets, scale) for row in scores]
    totals = [sum(row) for row in weights]
    counts = [0] * len(offsets)
    for place in right:
        counts[place] += 1
    for label, count in enumerate(counts):
        shares = [row[label] / total for row, total in zip(weights, totals, strict=True)]
        slope = sum(shares) - count + HOLD * offsets[label]
        curvature = sum(share * (1 - share) for share in shares) + HOLD
        step = max(-_FAR, min(_FAR, -slope / curvature))
        while abs(step) > _STILL and _change(shares, count, offsets[label], step) > 0:
            step /= 2
        offsets[label] += step
        grown = math.exp(step)
        for n, row in enumerate(weights):
            totals[n] += row[label] * (grown - 1)
            row[label] *= grown


def _change(shares: Sequence[float], count: int, offset: float, step: float) -> float:
    """What a step in one `b` adds to the objective."""
    grown = math.expm1(step)
    likelihood = sum(math.log1p(share * grown) for share in shares) - count * step
    return likelihood + HOLD / 2 * step * (2 * offset + step)


def _weights(row: Sequence[float], offsets: Sequence[float], scale: float) -> list[float]:
    """Exponentials of a row's logits, the greatest 1."""
    logits = [scale * score + offset for score, offset in zip(row, offsets, strict=True)]
    top = max(logits)
    return [math.exp(logit - top) for logit in logits]
