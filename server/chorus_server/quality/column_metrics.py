"""Metrics that need a column of the rows beside their answers: MultiRC's and ReCoRD's by question, WSC's by
whether the referent is the right one. See `metrics.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from chorus_server.errors import InvalidInputError
from chorus_server.quality.text_metrics import Answers, squad_em, squad_f1, with_answers

GROUP, LABEL = "group", "label"
"""What a column holds: the question or query that a row belongs to, or whether its referent is right."""

ColumnMetric = Callable[[Sequence[str], Answers, Sequence[str]], float]
"""(predictions, answers, each row's value in the column) -> a share from 0 to 1."""


class HasColumns(Protocol):
    """A row with what metrics need of it, by what it is."""

    @property
    def columns(self) -> Mapping[str, str] | None: ...


TRUTH: Mapping[str, bool] = MappingProxyType({"true": True, "1": True, "false": False, "0": False})
"""What a value of the column `label` means, in lower case."""

# `t5/data/postprocessors.py`, wsc_simple.
_DETERMINERS = frozenset(
    {
        *("a", "an", "few", "her", "his", "each", "every", "many", "much", "my", "our", "some", "that"),
        *("the", "their", "these", "this", "those", "which", "whose", "your"),
    }
)


def check_columns(columns: Mapping[str, str], field: str) -> None:
    """Refuse what no metric needs. Raises InvalidInputError."""
    for name in columns:
        if name not in (GROUP, LABEL):
            message = f"{field} has {ascii(name)[:60]}; metrics need columns for {GROUP!r} and {LABEL!r}"
            raise InvalidInputError(message, field=field)


def columns_of(rows: Sequence[HasColumns]) -> dict[str, list[str]]:
    """The columns of rows that all have the same ones, as metrics take them."""
    names = rows[0].columns or {} if rows else {}
    return {name: [(row.columns or {})[name] for row in rows] for name in names}


def multirc_em(predictions: Sequence[str], answers: Answers, groups: Sequence[str]) -> float:
    """Share of the questions of which every answer option is right."""
    right: dict[str, bool] = {}
    for (said, known), group in zip(with_answers(predictions, answers), groups, strict=True):
        right[group] = right.get(group, True) and said.strip() == known[0].strip()
    return sum(right.values()) / len(right)


def record_em(predictions: Sequence[str], answers: Answers, groups: Sequence[str]) -> float:
    """SQuAD's exact match over the first row of each query."""
    return squad_em(*_first_of_each(predictions, answers, groups), ())


def record_f1(predictions: Sequence[str], answers: Answers, groups: Sequence[str]) -> float:
    """SQuAD's F1 over the first row of each query."""
    return squad_f1(*_first_of_each(predictions, answers, groups), ())


def wsc_referent(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Share of the rows whose prediction names the row's referent if and only if that is the right one.

    A prediction names the referent if, without case and determiners, all words of one are among those of the
    other, and both have an apostrophe or neither has one. A prediction of which nothing is left is wrong.
    """
    right = [
        bool(_words(said)) and _names(_words(said), _words(known[0])) == TRUTH[label.lower()]
        for (said, known), label in zip(with_answers(predictions, answers), labels, strict=True)
    ]
    return sum(right) / len(right)


COLUMN_METRICS: Mapping[str, tuple[str, ColumnMetric]] = MappingProxyType(
    {
        "multirc_em": (GROUP, multirc_em),
        "record_em": (GROUP, record_em),
        "record_f1": (GROUP, record_f1),
        "wsc_referent": (LABEL, wsc_referent),
    }
)
"""What the column that a metric needs holds, and the metric."""


def _first_of_each(
    predictions: Sequence[str], answers: Answers, groups: Sequence[str]
) -> tuple[list[str], list[Sequence[str]]]:
    first: dict[str, int] = {}
    for place, group in enumerate(groups):
        first.setdefault(group, place)
    return [predictions[place] for place in first.values()], [answers[place] for place in first.values()]


def _words(text: str) -> str:
    return " ".join(word for word in text.strip().lower().split(" ") if word not in _DETERMINERS)


def _names(said: str, referent: str) -> bool:
    if ("'" in said) != ("'" in referent):  # "Bob" does not name "Bob's hat"
        return False
    ours, theirs = set(said.split(" ")), set(referent.split(" "))
    return ours <= theirs or theirs <= ours
