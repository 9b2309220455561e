"""Votes, and whether a difference is one: paired bootstrap over the examples of a split. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RESAMPLES = 10_000


def majority(predictions: Sequence[Sequence[int]], log_probabilities: Array | None = None) -> list[int]:
    """Majority of N members for each of R examples.

    Args:
        predictions: [N][R], places of labels; -1 is an answer that is no label, and votes for nothing.
        log_probabilities: [N, R], of each member's own answer. A tie goes to the answer with the higher mean,
            as serving does; without it to the earlier member's.
    """
    votes = np.array(predictions)
    chosen = []
    for example in range(votes.shape[1]):
        column = votes[:, example]
        ranked = []
        for first, answer in enumerate(column):
            if answer < 0 or answer in column[:first]:
                continue
            mine = column == answer
            mean = 0.0 if log_probabilities is None else float(log_probabilities[mine, example].mean())
            ranked.append((-int(mine.sum()), -mean, first, int(answer)))
        chosen.append(min(ranked)[3] if ranked else -1)
    return chosen


def paired_bootstrap(
    ours: Array, theirs: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """Difference of accuracies, ours less theirs, with a 95 % percentile interval.

    Seeds are pooled: an example's value is the share of seeds that got it right, and examples are drawn with
    all their seeds together. So the interval speaks of the mean over seeds on examples like these; seeds of
    one example are not taken for independent examples.

    Args:
        ours, theirs: [R], or [N, R] of N seeds; 1 where right, else 0.
    """
    mine, other = np.atleast_2d(ours).mean(axis=0), np.atleast_2d(theirs).mean(axis=0)
    if mine.shape != other.shape:
        raise ValueError(f"{mine.shape[0]} examples beside {other.shape[0]}: not the same split")
    difference = mine - other
    generator = np.random.default_rng(seed)
    picked = generator.integers(0, len(difference), (resamples, len(difference)))
    means = difference[picked].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"difference": float(difference.mean()), "low": float(low), "high": float(high)}


def right(predictions: Sequence[Sequence[int]], answers: Sequence[int]) -> Array:
    """[N, R], 1 where the prediction is the answer."""
    found: Array = (np.array(predictions) == np.array(answers)).astype(np.float64)
    return found
