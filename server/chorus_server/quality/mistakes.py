"""Where a prompt errs on a split: which label it says for which, and the rows that it finds hardest. Pure.

A split has rows without end, and what is kept of it has not: `MOST_HARDEST` rows, by their places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import isfinite
from typing import Any

from chorus_server.quality.text_metrics import Answers

MOST_CONFUSED = 128
"""Labels of the largest confusion matrix that is kept."""
MOST_HARDEST = 20
_DIGITS = 4

Confused = list[tuple[int, int, int]]
"""(place of the answer's label, place of the label that was said, rows); who said none of C labels said C."""


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What is kept of one prompt's answers on a split.

    Attributes:
        split: `validation` or `test`.
        rows: how many it has.
        confused: None without labels, or with more than `MOST_CONFUSED`.
        hardest: (place in the split, what was said, loss): the highest loss first. The loss is what the log
            probability of the answer falls short of 0, all tokens together. Of written text, or where none is
            a finite number, it is not known (None), and these are the first rows that were answered wrong.
    """

    split: str
    rows: int
    confused: Confused | None
    hardest: list[tuple[int, str, float | None]]

    @staticmethod
    def of(
        split: str,
        said: Sequence[str],
        losses: Sequence[float | None],
        answers: Answers,
        labels: Sequence[str],
    ) -> Mistakes:
        """The mistakes of a prompt.

        Args:
            said, losses, answers: one a row; the first of the accepted answers is the row's.
            labels: of the task, in order; empty for free text.
        """
        known = [(each, place) for place, each in enumerate(losses) if each is not None and isfinite(each)]
        if known:
            hard = nsmallest(MOST_HARDEST, known, key=lambda each: (-each[0], each[1]))
            places = [place for _, place in hard]
        else:
            right = [{each.strip() for each in accepted} for accepted in answers]
            places = [place for place, text in enumerate(said) if text.strip() not in right[place]]
        hardest = [(place, said[place], _rounded(losses[place])) for place in places[:MOST_HARDEST]]
        counted = 0 < len(labels) <= MOST_CONFUSED
        return Mistakes(split, len(said), confused(said, answers, labels) if counted else None, hardest)

    @staticmethod
    def from_json(document: dict[str, Any]) -> Mistakes:
        """From what `dataclasses.asdict` made of it."""
        pairs, rows = document["confused"], document["hardest"]
        counts = None if pairs is None else [(a, b, n) for a, b, n in pairs]
        return Mistakes(document["split"], document["rows"], counts, [(a, b, c) for a, b, c in rows])


def confused(said: Sequence[str], answers: Answers, labels: Sequence[str]) -> Confused:
    """How many rows with which label were given which, those that are 0 left out; and rows whose answer is
    none of the labels."""
    places = {label.strip(): place for place, label in enumerate(labels)}
    counts = Counter(
        (places[known[0].strip()], places.get(text.strip(), len(labels)))
        for text, known in zip(said, answers, strict=True)
        if known[0].strip() in places
    )
    return [(answer, text, count) for (answer, text), count in sorted(counts.items())]


def confusion_matrix(found: Confused, labels: Sequence[str]) -> dict[str, Any]:
    """`counts[t][s]`: rows whose answer is label t and that were given label s; in the last column, those
    that were given none of the labels."""
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for answer, text, count in found:
        counts[answer][text] = count
    return {"labels": list(labels), "counts": counts}


def _rounded(loss: float | None) -> float | None:
    return None if loss is None or not isfinite(loss) else round(loss, _DIGITS)
