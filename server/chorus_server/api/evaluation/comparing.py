"""Compares two subjects on the same rows: the paired bootstrap, and McNemar's test of their accuracies. Pure.

A resample draws as many rows as there are, with replacement, and both subjects get the same ones (Koehn 2004,
"Statistical Significance Tests for Machine Translation Evaluation"); `paired.py` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from chorus_server.api.evaluation.paired import PairedRows

RESAMPLES = 10_000
LEVEL = 0.95

_AT_ONCE = 2_000_000
"""Counts in memory at one time."""

_EXACT_UP_TO = 2_000
"""Rows on which the subjects differ up to which McNemar's test adds up the binomial's terms."""

_Floats = npt.NDArray[np.float64]


def compared(
    paired: PairedRows,
    seed: int,
    *,
    resamples: int = RESAMPLES,
    interrupt: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """How the second subject differs from the first: for each metric, and `mean`, the difference (second
    minus first), its 95 % interval (percentiles of the resamples) and a two-sided p-value; McNemar's test.

    Args:
        seed: the same one gives the same resamples.
        interrupt: called now and then; what it raises ends the work.
    """
    chance = np.random.default_rng(seed)
    whole = paired.values(paired.counts)
    differences: dict[str, list[_Floats]] = {name: [] for name in whole}
    size = int(paired.counts.sum())
    shares = paired.counts / size
    at_once = max(1, min(resamples, _AT_ONCE // paired.largest))
    for start in range(0, resamples, at_once):
        interrupt()
        drawn = chance.multinomial(size, shares, size=min(at_once, resamples - start))
        for name, values in paired.values(drawn).items():
            differences[name].append(values[:, 1] - values[:, 0])
    found = {}
    for name, parts in differences.items():
        drawn_differences = np.concatenate(parts)
        low, high = np.quantile(drawn_differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found[name] = {
            "difference": float(whole[name][0, 1] - whole[name][0, 0]),
            "low": float(low),
            "high": float(high),
            "p_value": _two_sided(drawn_differences),
        }
    return {"metrics": found, "resamples": resamples, "mcnemar": mcnemar(paired)}


def mcnemar(paired: PairedRows) -> dict[str, Any]:
    """McNemar's test: the rows that only one of the two answers right, and the two-sided probability of such
    a split between equals (exact; above two thousand rows the normal approximation with continuity)."""
    first, second = paired.right(0), paired.right(1)
    only_first, only_second = (
        int(paired.kinds[first & ~second].sum()),
        int(paired.kinds[second & ~first].sum()),
    )
    both, less = only_first + only_second, min(only_first, only_second)
    if both == 0:
        p_value = 1.0
    elif both <= _EXACT_UP_TO:
        tail = sum(math.comb(both, k) for k in range(less + 1))
        p_value = min(1.0, 2 * tail / 2**both)
    else:
        distance = max(0.0, abs(only_first - only_second) - 1) / math.sqrt(both)
        p_value = math.erfc(distance / math.sqrt(2))
    return {"only_first": only_first, "only_second": only_second, "p_value": p_value}


def _two_sided(differences: _Floats) -> float:
    """Twice the smaller share of resamples on one side of zero; never 0, since the resamples are finite."""
    side = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (int(side) + 1) / (len(differences) + 1))
