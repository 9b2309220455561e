"""Compares two subjects on the same rows: the paired bootstrap, and McNemar's test of their accuracies. Pure.

A resample draws as many rows as there are, with replacement, and both subjects get the same ones (Koehn 2004,
"Statistical Significance Tests for Machine Translation Evaluation"). Rows with the same answers and
predictions are of one kind, so a resample is drawn as how often each kind comes, and every metric is computed
from these counts, for many resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from chorus_server.tuning.metrics import METRICS, Answers, number_of, pearson

RESAMPLES = 10_000
LEVEL = 0.95

_AT_ONCE = 2_000_000
"""_Counts in memory at one time."""

_EXACT_UP_TO = 2_000
"""Rows on which the subjects differ up to which McNemar's test adds up the binomial's terms."""

_Floats = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]
_OfCounts = Callable[[_Floats, int], _Floats]
"""(how often each kind of row comes, by resample and kind; which subject) -> the metric of each resample."""


class PairedRows:
    """Two subjects' predictions on the same rows, by kind of row.

    Args:
        metrics: names, of tuning's.
        predictions: of the first and the second subject, one a row.
        answers: accepted answers of each row, the target first.
        labels: empty for free text.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        predictions: tuple[Sequence[str], Sequence[str]],
        answers: Answers,
        labels: Sequence[str],
    ) -> None:
        self.rows = len(answers)
        self._labels = [label.strip() for label in labels]
        kinds: dict[tuple[Any, ...], int] = {}
        places = [
            kinds.setdefault((tuple(known), first, second), len(kinds))
            for known, first, second in zip(answers, *predictions, strict=True)
        ]
        self.counts: _Counts = np.bincount(places, minlength=len(kinds)).astype(np.int64)
        self._answers = [known for known, _, _ in kinds]
        self._said = ([first for _, first, _ in kinds], [second for _, _, second in kinds])
        self._of_counts = {name: self._metric(name) for name in metrics}

    def values(self, counts: npt.ArrayLike) -> dict[str, _Floats]:
        """The metrics, and `mean`, of resamples: by name, [resample, subject].

        Args:
            counts: how often each kind of row comes, [resample, kind].
        """
        weights = np.atleast_2d(np.asarray(counts, np.float64))
        found = {
            name: np.stack([of_counts(weights, subject) for subject in (0, 1)], axis=1)
            for name, of_counts in self._of_counts.items()
        }
        return {**found, "mean": np.mean(list(found.values()), axis=0)}

    def right(self, subject: int) -> npt.NDArray[np.bool_]:
        """Which kinds of rows a subject answers right."""
        pairs = zip(self._said[subject], self._answers, strict=True)
        return np.array([said.strip() in {each.strip() for each in known} for said, known in pairs])

    def _metric(self, name: str) -> _OfCounts:
        metric = METRICS[name]
        if metric is METRICS["f1_binary"]:
            return self._f1_binary()
        if name == "f1_macro":
            return self._f1_macro()
        if name == "matthews":
            return self._matthews()
        if metric is pearson:
            return self._pearson()
        # The others are means over rows.
        scores = [
            np.array(
                [
                    metric([text], [known], self._labels)
                    for text, known in zip(said, self._answers, strict=True)
                ]
            )
            for said in self._said
        ]
        return lambda weights, subject: np.asarray(weights @ scores[subject] / self.rows)

    def _classes(self, legal: bool) -> tuple[npt.NDArray[np.int64], tuple[npt.NDArray[np.int64], ...], int]:
        """Class of each kind's answer and of both predictions, and how many there are.

        Args:
            legal: all texts that are no label are one class, the last; else each text is one.
        """
        known: dict[str, int] = {label: place for place, label in enumerate(self._labels)}
        other = len(known)

        def place(text: str) -> int:
            return known.get(text.strip(), other) if legal else known.setdefault(text.strip(), len(known))

        true = np.array([place(each[0]) for each in self._answers])
        said = tuple(np.array([place(text) for text in texts]) for texts in self._said)
        return true, said, other + 1 if legal else len(known)

    def _f1_binary(self) -> _OfCounts:
        true, said, _ = self._classes(legal=True)
        # An answer that is neither label counts as the wrong one.
        decided = [np.where(each > 1, 1 - true, each) for each in said]

        def of_counts(weights: _Floats, subject: int) -> _Floats:
            positive = decided[subject] == 1
            both = weights @ (positive & (true == 1))
            return _shares(2 * both, weights @ positive + weights @ (true == 1))

        return of_counts

    def _f1_macro(self) -> _OfCounts:
        true, said, _ = self._classes(legal=True)

        def of_counts(weights: _Floats, subject: int) -> _Floats:
            total = np.zeros(len(weights))
            for label in range(len(self._labels)):
                mine, its = said[subject] == label, true == label
                total += _shares(2 * (weights @ (mine & its)), weights @ mine + weights @ its)
            return total / len(self._labels)

        return of_counts

    def _matthews(self) -> _OfCounts:
        true, said, classes = self._classes(legal=bool(self._labels))

        def of_counts(weights: _Floats, subject: int) -> _Floats:
            rows = float(self.rows)
            product, said_squares, true_squares = (np.zeros(len(weights)) for _ in range(3))
            for each in range(classes):
                of_said, of_true = weights @ (said[subject] == each), weights @ (true == each)
                product += of_said * of_true
                said_squares += of_said**2
                true_squares += of_true**2
            covariance = weights @ (said[subject] == true) * rows - product
            return _shares(covariance, np.sqrt((rows**2 - said_squares) * (rows**2 - true_squares)))

        return of_counts

    def _pearson(self) -> _OfCounts:
        y = np.array([number_of(known[0]) for known in self._answers])
        xs = [np.array([number_of(text) for text in said]) for said in self._said]

        def of_counts(weights: _Floats, subject: int) -> _Floats:
            shares = weights / self.rows
            x = xs[subject]
            mean_x, mean_y = shares @ x, shares @ y
            covariance = shares @ (x * y) - mean_x * mean_y
            spread_x = np.maximum(shares @ x**2 - mean_x**2, 0.0)
            spread_y = np.maximum(shares @ y**2 - mean_y**2, 0.0)
            return _shares(covariance, np.sqrt(spread_x) * np.sqrt(spread_y))

        return of_counts


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
    shares = paired.counts / paired.rows
    at_once = max(1, min(resamples, _AT_ONCE // len(shares)))
    for start in range(0, resamples, at_once):
        interrupt()
        drawn = chance.multinomial(paired.rows, shares, size=min(at_once, resamples - start))
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
        int(paired.counts[first & ~second].sum()),
        int(paired.counts[second & ~first].sum()),
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


def _shares(parts: _Floats, wholes: _Floats) -> _Floats:
    """`parts / wholes`; 0 where the whole is 0."""
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)
