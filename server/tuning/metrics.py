"""How good answers are: predictions (texts) against the accepted answers of each example.

The names and rules are those of GLUE, SuperGLUE and SQuAD as T5 evaluates them: an answer that is no label at
all is wrong, never left out.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from server.errors import InvalidInputError

Answers = Sequence[Sequence[str]]
"""Accepted answers of each example, the first one the target."""

Metric = Callable[[Sequence[str], Answers, Sequence[str]], float]
"""(predictions, answers, labels of the task in order) -> a share from 0 to 1, or a correlation from -1 to
1."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_LARGEST = 1e70
"""Of a number, so that products of squares stay finite."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def accuracy(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Share of predictions that are, but for spaces at the ends, an accepted answer."""
    right = [said.strip() in {each.strip() for each in known} for said, known in _pairs(predictions, answers)]
    return sum(right) / len(right)


def f1_binary(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """F1 of the last label, the positive one; anything else counts as not positive."""
    positive = _two(labels, "f1_binary")[1]
    return _f1(predictions, answers, positive)


def f1_over_all_answers(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """MultiRC's F1a: binary F1 over every answer option of every question together; a prediction that is
    neither label counts as the wrong one."""
    negative, positive = _two(labels, "f1_over_all_answers")
    other = {negative: positive, positive: negative}
    said = [
        each if each in other else other.get(known[0].strip(), each)
        for each, known in zip((text.strip() for text in predictions), answers, strict=True)
    ]
    return _f1(said, answers, positive)


def f1_macro(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Mean over the labels of each one's F1; a label that nobody says or expects has 0 (CB's mean F1)."""
    if not labels:
        raise InvalidInputError("the metric f1_macro needs labels", field="metrics")
    pairs = [(said.strip(), known[0].strip()) for said, known in _pairs(predictions, answers)]
    both = Counter(said for said, true in pairs if said == true)
    either = Counter(said for said, _ in pairs) + Counter(true for _, true in pairs)
    return sum(2 * both[label] / either[label] for label in labels if either[label]) / len(labels)


def exact_match(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Share of predictions equal to an accepted answer after SQuAD's normalisation (case, punctuation,
    articles, spaces)."""
    right = [
        normalised(said) in {normalised(each) for each in known}
        for said, known in _pairs(predictions, answers)
    ]
    return sum(right) / len(right)


def squad_f1(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Mean over examples of the best word overlap F1 with an accepted answer, after SQuAD's normalisation."""
    best = [max(_word_f1(said, each) for each in known) for said, known in _pairs(predictions, answers)]
    return sum(best) / len(best)


def matthews(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Matthews correlation over all labels (Gorodkin 2004; for two labels, the usual one); 0 where
    undefined."""
    pairs = [(said.strip(), known[0].strip()) for said, known in _pairs(predictions, answers)]
    said, true = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
    total, right = len(pairs), sum(a == b for a, b in pairs)
    covariance = right * total - sum(said[label] * true[label] for label in true)
    spread = (total**2 - sum(n * n for n in said.values())) * (total**2 - sum(n * n for n in true.values()))
    return covariance / math.sqrt(spread) if spread else 0.0


def pearson(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Pearson correlation of numbers; a prediction that is no number up to 1e70 counts as 0. 0 where
    undefined."""
    x = [_number(said) for said in predictions]
    y = [_number(known[0]) for known in answers]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread = math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))
    return covariance / spread if spread else 0.0


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        each.__name__: each
        for each in (
            accuracy, f1_binary, f1_macro, f1_over_all_answers, exact_match, squad_f1, matthews, pearson,
        )
    }
)  # fmt: skip


def check_metrics(names: Sequence[str], labels: Sequence[str]) -> None:
    """Refuse before a job starts what `measure` could not do.

    Raises:
        InvalidInputError: no name, an unknown name, or labels that do not suit.
    """
    if not names:
        raise InvalidInputError(f"name at least one metric of {', '.join(METRICS)}", field="metrics")
    for name in names:
        if name not in METRICS:
            message = f"there is no metric {ascii(name)[:60]}; choose of {', '.join(METRICS)}"
            raise InvalidInputError(message, field="metrics")
        if name in ("f1_binary", "f1_over_all_answers"):
            _two(labels, name)
        if name == "f1_macro" and not labels:
            raise InvalidInputError("the metric f1_macro needs labels", field="metrics")


def measure(
    names: Sequence[str], predictions: Sequence[str], answers: Answers, labels: Sequence[str] = ()
) -> dict[str, float]:
    """Each metric by name, and `mean` of them: the one that chooses a checkpoint.

    Args:
        names: of `METRICS`.
        predictions: one text an example; at least one.
        answers: accepted answers of each example.
        labels: of the task, in order.

    Raises:
        InvalidInputError: see `check_metrics`.
    """
    check_metrics(names, labels)
    if not predictions or len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions for {len(answers)} examples")
    found = {name: METRICS[name](predictions, answers, labels) for name in names}
    return {**found, "mean": sum(found.values()) / len(found)}


def normalised(text: str) -> str:
    """SQuAD's: lower case, without punctuation and articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _pairs(predictions: Sequence[str], answers: Answers) -> list[tuple[str, Sequence[str]]]:
    return list(zip(predictions, answers, strict=True))


def _two(labels: Sequence[str], metric: str) -> tuple[str, str]:
    if len(labels) != 2:
        message = f"the metric {metric} needs two labels, the positive one last; the task has {len(labels)}"
        raise InvalidInputError(message, field="metrics")
    return labels[0], labels[1]


def _f1(predictions: Sequence[str], answers: Answers, label: str) -> float:
    pairs = [
        (said.strip() == label, known[0].strip() == label) for said, known in _pairs(predictions, answers)
    ]
    both = sum(a and b for a, b in pairs)
    either = sum(a for a, _ in pairs) + sum(b for _, b in pairs)
    return 2 * both / either if either else 0.0


def _word_f1(said: str, known: str) -> float:
    a, b = normalised(said).split(), normalised(known).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if abs(value) <= _LARGEST else 0.0  # also of what is no number at all: NaN
