"""Two subjects' predictions on the same rows, counted so that every metric of many resamples is a product of
matrices. Pure.

Rows with the same answers and predictions are of one kind, so a resample is drawn as how often each kind
comes. Where rows belong to groups (the answer options of a question, say), whole groups are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from chorus_server.quality.column_metrics import COLUMN_METRICS, GROUP, LABEL
from chorus_server.quality.metrics import METRICS, number_of
from chorus_server.quality.text_metrics import Answers

_Floats = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]
_OfCounts = Callable[[_Floats, int], _Floats]
"""(how often each kind of row, or each group, comes, by resample; which subject) -> the metric of each
resample."""


class PairedRows:
    """Two subjects' predictions on the same rows, by kind of row.

    Args:
        metrics: names, of tuning's.
        predictions: of the first and the second subject, one a row.
        answers: accepted answers of each row, the target first.
        labels: empty for free text.
        columns: each row's value, by what it is; see `metrics.measure`.

    Attributes:
        kinds: how many rows there are of each kind.
        counts: what a resample draws from: `kinds`, or 1 for each group.
        largest: how many numbers a resample takes.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        predictions: tuple[Sequence[str], Sequence[str]],
        answers: Answers,
        labels: Sequence[str],
        columns: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self._labels = [label.strip() for label in labels]
        kinds: dict[tuple[Any, ...], int] = {}
        truths = columns.get(LABEL) or [""] * len(answers)
        places = [
            kinds.setdefault((tuple(known), *rest), len(kinds))
            for known, *rest in zip(answers, *predictions, truths, strict=True)
        ]
        self.kinds: _Counts = np.bincount(places, minlength=len(kinds)).astype(np.int64)
        self._answers = [kind[0] for kind in kinds]
        self._said = ([kind[1] for kind in kinds], [kind[2] for kind in kinds])
        self._truths = [kind[3] for kind in kinds]
        self._groups: list[list[int]] = []
        self.counts, self.largest = self.kinds, len(kinds)
        if GROUP in columns:
            self._group(columns[GROUP], np.array(places))
        self._of_counts = {name: self._metric(name) for name in metrics}

    def values(self, counts: npt.ArrayLike) -> dict[str, _Floats]:
        """The metrics, and `mean`, of resamples: by name, [resample, subject].

        Args:
            counts: how often each of `self.counts` comes, [resample, kind or group].
        """
        drawn = np.atleast_2d(np.asarray(counts, np.float64))
        weights = drawn
        if self._groups:
            weights = np.add.reduceat(drawn[:, self._group_of], self._starts, axis=1)
        found = {
            name: np.stack(
                [of_counts(drawn if _by_group(name) else weights, subject) for subject in (0, 1)], axis=1
            )
            for name, of_counts in self._of_counts.items()
        }
        return {**found, "mean": np.mean(list(found.values()), axis=0)}

    def right(self, subject: int) -> npt.NDArray[np.bool_]:
        """Which kinds of rows a subject answers right."""
        pairs = zip(self._said[subject], self._answers, strict=True)
        return np.array([said.strip() in {each.strip() for each in known} for said, known in pairs])

    def _group(self, names: Sequence[str], kinds: npt.NDArray[np.int64]) -> None:
        """Draw groups: `_groups` has the kinds of each one's rows in order; `_group_of` has each row's group,
        rows of one kind beside each other from `_starts` on."""
        numbers: dict[str, int] = {}
        groups = np.array([numbers.setdefault(name, len(numbers)) for name in names])
        self._groups = [[] for _ in numbers]
        for group, kind in zip(groups.tolist(), kinds.tolist(), strict=True):
            self._groups[group].append(kind)
        by_kind = np.argsort(kinds, kind="stable")
        self._group_of, self._starts = (
            groups[by_kind],
            np.searchsorted(kinds[by_kind], range(len(self.kinds))),
        )
        self.counts, self.largest = np.ones(len(numbers), np.int64), len(names)

    def _metric(self, name: str) -> _OfCounts:
        if name in COLUMN_METRICS:
            return self._of_groups(name) if _by_group(name) else self._of_truths(name)
        metric = METRICS[name]
        if metric is METRICS["f1_binary"]:
            return self._f1_binary()
        if name == "f1_macro":
            return self._f1_macro()
        if name == "matthews":
            return self._matthews()
        if name in ("pearson", "spearman"):
            return self._correlation(of_ranks=name == "spearman")
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
        return _mean_of(scores)

    def _of_truths(self, name: str) -> _OfCounts:
        metric = COLUMN_METRICS[name][1]
        rows = list(zip(self._answers, self._truths, strict=True))
        return _mean_of(
            [
                np.array([metric([text], [a], [truth]) for text, (a, truth) in zip(said, rows, strict=True)])
                for said in self._said
            ]
        )

    def _of_groups(self, name: str) -> _OfCounts:
        metric = COLUMN_METRICS[name][1]
        scores = [
            [
                metric(
                    [said[kind] for kind in group], [self._answers[kind] for kind in group], [""] * len(group)
                )
                for group in self._groups
            ]
            for said in self._said
        ]
        return _mean_of([np.array(each) for each in scores])

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
            rows = weights.sum(axis=1)
            product, said_squares, true_squares = (np.zeros(len(weights)) for _ in range(3))
            for each in range(classes):
                of_said, of_true = weights @ (said[subject] == each), weights @ (true == each)
                product += of_said * of_true
                said_squares += of_said**2
                true_squares += of_true**2
            covariance = weights @ (said[subject] == true) * rows - product
            return _shares(covariance, np.sqrt((rows**2 - said_squares) * (rows**2 - true_squares)))

        return of_counts

    def _correlation(self, of_ranks: bool) -> _OfCounts:
        y = np.array([number_of(known[0]) for known in self._answers])
        xs = [np.array([number_of(text) for text in said]) for said in self._said]

        def of_counts(weights: _Floats, subject: int) -> _Floats:
            shares = weights / weights.sum(axis=1, keepdims=True)
            of_x, of_y = (_ranks(each, weights) if of_ranks else each for each in (xs[subject], y))

            def mean(values: _Floats) -> _Floats:
                return np.asarray((shares * values).sum(axis=1))

            mean_x, mean_y = mean(of_x), mean(of_y)
            covariance = mean(of_x * of_y) - mean_x * mean_y
            spread_x = np.maximum(mean(of_x**2) - mean_x**2, 0.0)
            spread_y = np.maximum(mean(of_y**2) - mean_y**2, 0.0)
            return _shares(covariance, np.sqrt(spread_x) * np.sqrt(spread_y))

        return of_counts


def _by_group(name: str) -> bool:
    return name in COLUMN_METRICS and COLUMN_METRICS[name][0] == GROUP


def _mean_of(scores: Sequence[_Floats]) -> _OfCounts:
    """The mean of what each kind of row, or each group, has."""
    return lambda weights, subject: np.asarray(weights @ scores[subject] / weights.sum(axis=1))


def _ranks(values: _Floats, weights: _Floats) -> _Floats:
    """Mean rank of each kind's value in each resample, [resample, kind]."""
    order, places = np.unique(values, return_inverse=True)
    counts = np.stack([weights[:, places == each].sum(axis=1) for each in range(len(order))], axis=1)
    return np.asarray((np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, places])


def _shares(parts: _Floats, wholes: _Floats) -> _Floats:
    """`parts / wholes`; 0 where the whole is 0."""
    return np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)
