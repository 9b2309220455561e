"""How good answers are: predictions (texts) against the accepted answers of each example.

The rules of GLUE, SuperGLUE and SQuAD are those by which T5 evaluates them (google-research/
text-to-text-transfer-transformer, `t5/evaluation/metrics.py`, `qa_utils.py`, `t5/data/postprocessors.py`), as
shares where T5 gives percentages, and 0 where T5 has no number. An answer that is no label at all is wrong,
never left out. Spaces at the ends of a text never count. `docs/tuning.md` names every metric with its rule.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from chorus_server.errors import InvalidInputError
from chorus_server.quality.column_metrics import COLUMN_METRICS, GROUP, LABEL
from chorus_server.quality.text_metrics import Answers, accuracy, rouge_l, squad_em, squad_f1, with_answers

Metric = Callable[[Sequence[str], Answers, Sequence[str]], float]
"""(predictions, answers, labels of the task in order) -> a share from 0 to 1, or a correlation from -1 to
1."""

_ILLEGAL = -1.0
"""What T5 reads where a text is no number."""
_LARGEST = 1e70
"""Of a number, so that products of squares stay finite."""


def f1_binary(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """F1 of the second of two labels, the positive one; a prediction that is neither label counts as the
    wrong one (T5's `f1_score_with_invalid`)."""
    negative, positive = labels
    other = {negative: positive, positive: negative}
    pairs = [(said.strip(), known[0].strip()) for said, known in with_answers(predictions, answers)]
    said = [a if a in other else other.get(b, a) for a, b in pairs]
    both = sum(a == b == positive for a, (_, b) in zip(said, pairs, strict=True))
    either = said.count(positive) + sum(b == positive for _, b in pairs)
    return 2 * both / either if either else 0.0


def f1_macro(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Mean over the labels of each one's F1; a label that nobody says or expects has 0 (CB's mean F1)."""
    pairs = [(said.strip(), known[0].strip()) for said, known in with_answers(predictions, answers)]
    both = Counter(said for said, true in pairs if said == true)
    either = Counter(said for said, _ in pairs) + Counter(true for _, true in pairs)
    return sum(2 * both[label] / either[label] for label in labels if either[label]) / len(labels)


def matthews(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Matthews correlation over all labels (Gorodkin 2004; for two labels, the usual one); 0 where
    undefined. All texts that are no label are one class; without labels, each text is a class."""
    known_labels = {each.strip() for each in labels}

    def kind(text: str) -> str | None:
        return text.strip() if not known_labels or text.strip() in known_labels else None

    pairs = [(kind(said), kind(known[0])) for said, known in with_answers(predictions, answers)]
    said, true = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
    total, right = len(pairs), sum(a == b for a, b in pairs)
    covariance = right * total - sum(said[label] * true[label] for label in true)
    spread = (total**2 - sum(n * n for n in said.values())) * (total**2 - sum(n * n for n in true.values()))
    return covariance / math.sqrt(spread) if spread else 0.0


def pearson(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Pearson correlation of numbers; a text that is no finite number up to 1e70 counts as -1. 0 where
    undefined."""
    return _correlation([number_of(said) for said in predictions], [number_of(known[0]) for known in answers])


def spearman(predictions: Sequence[str], answers: Answers, labels: Sequence[str]) -> float:
    """Spearman correlation: Pearson's of ranks, equal numbers sharing their mean rank. Numbers are read as
    `pearson` reads them."""
    said, true = ([number_of(text) for text in texts] for texts in (predictions, [a[0] for a in answers]))
    return _correlation(_ranks(said), _ranks(true))


def _ranks(values: Sequence[float]) -> Sequence[float]:
    _, places, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    ranks: list[float] = (np.cumsum(counts) - (counts - 1) / 2)[places].tolist()
    return ranks


def _correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """0 where undefined."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    spread = math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))
    return covariance / spread if spread else 0.0


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "accuracy": accuracy,
        "f1_binary": f1_binary,
        "f1_macro": f1_macro,
        "f1_over_all_answers": f1_binary,  # MultiRC's F1a: of every answer option of every question together
        "exact_match": accuracy,  # as it is called for free text; `squad_em` ignores case and punctuation
        "squad_em": squad_em,
        "squad_f1": squad_f1,
        "matthews": matthews,
        "pearson": pearson,
        "spearman": spearman,
        "rouge_l": rouge_l,
    }
)
"""Those that need nothing but answers. All names are in `NAMES`."""

NAMES = (*METRICS, *COLUMN_METRICS)


def check_metrics(
    names: Sequence[str], labels: Sequence[str], columns: Collection[str] = (GROUP, LABEL)
) -> None:
    """Refuse before a job starts what `measure` could not do.

    Args:
        columns: what the columns hold that the rows have.

    Raises:
        InvalidInputError: no name, an unknown name, or labels or columns that do not suit.
    """
    if not names:
        raise InvalidInputError(f"name at least one metric of {', '.join(NAMES)}", field="metrics")
    for name in names:
        if name not in NAMES:
            message = f"there is no metric {ascii(name)[:60]}; choose one of {', '.join(NAMES)}"
            raise InvalidInputError(message, field="metrics")
        if METRICS.get(name) is f1_binary and len(labels) != 2:
            message = f"the metric {name} needs two labels, the positive one last; the task has {len(labels)}"
            raise InvalidInputError(message, field="metrics")
        if name == "f1_macro" and not labels:
            raise InvalidInputError("the metric f1_macro needs labels", field="metrics")
        if name in COLUMN_METRICS and COLUMN_METRICS[name][0] not in columns:
            needed = COLUMN_METRICS[name][0]
            message = f"the metric {name} needs a column: name it as {needed!r} in metric_columns"
            raise InvalidInputError(message, field="metrics")


def measure(
    names: Sequence[str],
    predictions: Sequence[str],
    answers: Answers,
    labels: Sequence[str] = (),
    columns: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> dict[str, float]:
    """Each metric by name, and `mean` of them: the one that chooses a checkpoint.

    Args:
        names: of `NAMES`.
        predictions: one text an example; at least one.
        answers: accepted answers of each example.
        labels: of the task, in order.
        columns: each example's value, by what it is: `group`, `label`.

    Raises:
        InvalidInputError: see `check_metrics`.
    """
    check_metrics(names, labels, columns)
    if not predictions or len(predictions) != len(answers):
        raise ValueError(f"{len(predictions)} predictions for {len(answers)} examples")
    found = {}
    for name in names:
        if name in METRICS:
            found[name] = METRICS[name](predictions, answers, labels)
        else:
            needed, metric = COLUMN_METRICS[name]
            found[name] = metric(predictions, answers, columns[needed])
    return {**found, "mean": sum(found.values()) / len(found)}


def legal_share(predictions: Sequence[str], labels: Sequence[str]) -> float:
    """Share of the answers that are, but for spaces at the ends, one of the labels."""
    known = {label.strip() for label in labels}
    return sum(said.strip() in known for said in predictions) / len(predictions)


def number_of(text: str) -> float:
    """The number that a text is, as `pearson` reads it: -1 if it is none, or beyond 1e70."""
    try:
        value = float(text)
    except ValueError:
        return _ILLEGAL
    return value if abs(value) <= _LARGEST else _ILLEGAL  # also of what is no number at all: NaN
