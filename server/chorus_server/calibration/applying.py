"""From log probabilities of labels to probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chorus_server.calibration.fitting import Scaling


def probabilities(scores: Sequence[float], scaling: Scaling) -> list[float]:
    """`softmax((log p - prior) / T)` of one row."""
    return softmax(scaled(scores, scaling))


def scaled(scores: Sequence[float], scaling: Scaling) -> list[float]:
    """`(log p - prior) / T` of one row."""
    prior = scaling.prior or (0.0,) * len(scores)
    return [(score - own) / scaling.temperature for score, own in zip(scores, prior, strict=True)]


def softmax(scores: Sequence[float]) -> list[float]:
    """Probabilities from log probabilities; equal shares if all are minus infinity."""
    top = max(scores)
    if top == -math.inf:
        return [1 / len(scores)] * len(scores)
    weights = [math.exp(score - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]
